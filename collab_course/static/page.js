// The page: what the visitor rates, and what follows from it. All that is shown is written as text, never as HTML.

const $ = id => document.getElementById(id);
const make = (tag, text = '', className = '') => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
};

const {titles, counts, means, levels, noun, ranks} = data;
const model = modelOf(data.model), find = titleIndex(titles);
const byCount = titles.map((_, k) => k).sort((a, b) => counts[b] - counts[a] || a - b);
const ratings = new Map(), skipped = new Set();          // {number of a title: stars}; titles that were not seen
let asked = null, state = null, solveMs = 0;             // state: what the model says, null before the first star

const skip = ranks || noun !== 'film' ? 'Skip' : 'Not seen';
const say = (value, digits = 2) => value.toFixed(digits).replace('-', '−');
const signed = value => (value < 0 ? '−' : '+') + Math.abs(value).toFixed(2);
const starText = value => ranks ? 'liked' : `${value} star${value === 1 ? '' : 's'}`;

// what the model says

function solve() {
  const start = performance.now(), rated = [...ratings.keys()];
  state = rated.length ? model.solve(rated, rated.map(k => ratings.get(k))) : null;
  solveMs = performance.now() - start;
}

// the best of the titles with so many ratings, or what is popular: {item, value} each
function best(n = 10) {
  const least = Number($('least').value) || 0;
  const left = titles.map((_, k) => k).filter(k => !ratings.has(k) && counts[k] >= least);
  const key = state ? state.scores : counts;
  return left.sort((a, b) => key[b] - key[a] || a - b).slice(0, n)
    .map(item => ({item, value: state ? state.scores[item] : means[item]}));
}

// Which answer would help most? What it says of all other titles, times the chance that the visitor knows it.
function question() {
  const open = byCount.filter(k => !ratings.has(k) && !skipped.has(k)).slice(0, 200);
  if (!open.length) return null;
  if (!model.gain) return open[0];
  const now = state ?? model.solve([], []);
  const worth = k => model.gain(now, k)*counts[k];
  return open.reduce((a, b) => worth(b) > worth(a) ? b : a);
}

// stars: radio buttons, so that arrows, fingers and screen readers know them

function starGroup(k, place) {
  if (ranks) return likeButton(k, place);
  const group = make('fieldset'), isHalf = levels.length === 10 && levels[0] === .5 && levels[9] === 5;
  const isWhole = levels.length === 5 && levels[0] === 1 && levels[4] === 5;
  group.className = isHalf ? 'halves' : isWhole ? 'stars' : 'plain';
  group.dataset.item = k;
  group.append(make('legend', `your rating of ${titles[k]}`, 'unseen'));
  for (const value of levels) {
    const label = make('label'), input = document.createElement('input');
    Object.assign(input, {type: 'radio', name: `${place}-${k}`, value, ariaLabel: starText(value)});
    input.checked = ratings.get(k) === value;
    input.addEventListener('change', () => rate(k, value, place));
    label.append(input, make('i', isHalf || isWhole ? '' : String(value)));
    label.title = starText(value);
    group.append(label);
  }
  paint(group);
  return group;
}

function likeButton(k, place) {
  const button = make('button', 'I like it', 'liked');
  button.type = 'button';
  button.dataset.item = k;
  button.ariaLabel = `I like ${titles[k]}`;
  button.addEventListener('click', () => ratings.has(k) ? forget(k) : rate(k, 1, place));
  paint(button);
  return button;
}

// a group shows what is rated, wherever it was rated
function paint(group) {
  const value = ratings.get(Number(group.dataset.item));
  if (ranks) {
    group.ariaPressed = value !== undefined;
    return;
  }
  const isPlain = group.className === 'plain';
  for (const label of group.querySelectorAll('label')) {
    const input = label.querySelector('input'), own = Number(input.value);
    label.classList.toggle('on', value !== undefined && (isPlain ? own === value : own <= value));
    input.checked = own === value;
  }
}

function rate(k, value, place) {
  ratings.set(k, value);
  changed();
  if (k === asked && place !== 'ask') ask();
}

function forget(k) {
  ratings.delete(k);
  changed();
}

function changed() {
  solve();
  document.querySelectorAll('[data-item]').forEach(paint);
  showRated();
  showList();
  showMap();
  $('next').textContent = ratings.has(asked) ? `Next ${noun}` : skip;
}

// the parts of the page

function ask() {
  asked = question();
  $('ask').hidden = asked === null;
  if (asked === null) return;
  $('asked').textContent = titles[asked];
  $('answer').replaceChildren(starGroup(asked, 'ask'));
  $('next').textContent = skip;
}

function goOn(event) {
  if (!ratings.has(asked)) skipped.add(asked);
  ask();
  if (event.detail === 0 && asked !== null) $('answer').querySelector('input, button').focus();     // by a key
}

function entry(k, place, ...more) {
  const row = make('li');
  row.append(make('span', titles[k], 'name'), starGroup(k, place), ...more);
  return row;
}

function search() {
  const text = titleKey($('search').value), any = $('search').value.trim();
  const found = any ? byCount.filter(k => titles[k].toLowerCase().includes(any.toLowerCase())
    || text && titleParts(titles[k])[0].some(key => key.includes(text))) : [];
  $('hits').replaceChildren(...found.slice(0, 8).map(k => entry(k, 'hit')));
  $('hitsSaid').textContent = !any ? '' : found.length > 8 ? `${found.length} found, the most rated eight:`
    : `${found.length} found`;
}

// new ones in front; those that are there stay, and with them what has the focus
function showRated() {
  const list = $('rated'), there = new Map([...list.children].map(row => [Number(row.dataset.row), row]));
  for (const [k, row] of there) if (!ratings.has(k)) row.remove();
  for (const k of ratings.keys()) if (!there.has(k)) {
    const remove = make('button', '×');
    Object.assign(remove, {type: 'button', ariaLabel: `remove ${titles[k]}`, title: 'remove'});
    remove.addEventListener('click', () => {
      forget(k);
      $('mineHead').focus();
    });
    const row = ranks ? entry(k, 'mine') : entry(k, 'mine', remove);
    row.dataset.row = k;
    list.prepend(row);
  }
  $('mineHead').textContent = `Your ${noun}s (${ratings.size})`;
  $('clear').disabled = $('save').disabled = !ratings.size;
}

function whyText(item) {
  const {pushes} = model.reasons(state, item);
  const most = pushes.filter(p => Math.abs(p.push) >= (ranks ? 1e-6 : .005))
    .sort((a, b) => Math.abs(b.push) - Math.abs(a.push)).slice(0, 2);
  const why = make('div', '', 'why');
  for (const [words, some] of [['because of', most.filter(p => p.push > 0)],
                               ['in spite of', most.filter(p => p.push < 0)]]) {
    some.forEach(({item: k, push}, n) => {
      const own = ranks ? titles[k] : `${titles[k]} (${starText(ratings.get(k))})`;
      why.append(n ? ', ' : `${why.textContent ? '; ' : ''}${words} `, make('b', own), ' ' + signed(push));
    });
  }
  return why;
}

// a prediction with its error: the bar is one standard deviation to each side
function valueCell(item, value) {
  const cell = make('td', value === null ? '' : say(value), 'number');
  if (!state || !model.spread) return cell;
  const sd = model.spread(state, item), [low, high] = [levels[0], levels.at(-1)];
  const share = v => 100*Math.min(1, Math.max(0, (v - low)/(high - low)));
  const bar = make('span', '', 'bar'), range = make('i'), mark = make('b');
  range.style.left = share(value - sd) + '%';
  range.style.width = share(value + sd) - share(value - sd) + '%';
  mark.style.left = `calc(${share(value)}% - 1px)`;
  bar.append(range, mark);
  bar.ariaHidden = true;
  cell.append(` ± ${say(sd)}`, bar);
  return cell;
}

function showList() {
  const list = best();
  $('list').tBodies[0].replaceChildren(...list.map(({item, value}, n) => {
    const row = make('tr'), name = make('th');
    name.scope = 'row';
    name.append(make('div', titles[item], 'name'));
    if (state) name.append(whyText(item));
    row.append(make('td', n + 1, 'number'), name, valueCell(item, value));
    return row;
  }));
  $('listHead').textContent = state ? 'Your list' : 'What most people rated';
  $('valueHead').textContent = state ? (ranks ? 'score' : 'predicted') : 'mean';
  $('said').textContent = state && list.length
    ? `After ${ratings.size} ${ratings.size === 1 ? noun : noun + 's'} the first is ${titles[list[0].item]}.` : '';
}

// the map

let map = null, place = null;

function startMap() {
  $('where').hidden = !data.map;
  if (!data.map) return;
  const {items, x, y} = data.map, most = Math.max(...counts, 1);
  const rows = items.map((k, r) => ({item: k, name: titles[k], x: x[r], y: y[r], n: counts[k],
                                     size: 2 + 5*Math.sqrt(counts[k]/most),
                                     colour: '--accent', shape: 0, get lines() { return known(k); }}));
  map = tasteMap($('map'), $('tip'), rows, data.map);
  map.rows = rows;
  zoomButtons(document.querySelector('.zoom'), map);
  for (const text of [noun, 'component ' + data.map.components[0], 'component ' + data.map.components[1], 'ratings',
                      'you', ranks ? 'score' : 'predicted']) {
    const head = make('th', text);
    head.scope = 'col';
    $('mapHead').append(head);
  }
  $('table').addEventListener('toggle', showTable);
  map.wholeMap();
}

function known(k) {
  const mean = means[k] === null ? [] : [`mean rating ${say(means[k])}`];
  const own = ratings.has(k) ? [`you: ${starText(ratings.get(k))}`] : [];
  const predicted = state ? [`${ranks ? 'score' : 'predicted'} ${say(state.scores[k])}`] : [];
  return [`${counts[k].toLocaleString('en')} ratings`, ...mean, ...predicted, ...own];
}

function showTable() {
  if (!$('table').open) return;
  fillBody($('table').querySelector('tbody'), map.rows.map(row => [
    row.name, row.x, row.y, String(row.n), ratings.has(row.item) ? starText(ratings.get(row.item)) : '',
    state ? state.scores[row.item] : '']));
}

// In standard deviations of all users, drawn in those of the titles
function standing() {
  const {project, centre, stretch} = data.map;
  return [0, 1].map(c => (state.vector.reduce((sum, v, k) => sum + v*project[k][c], 0) - centre[c])*stretch[c]);
}

function showMap() {
  if (!map) return;
  const top = new Set(state ? best().map(({item}) => item) : []);
  map.found.clear();
  map.rows.forEach((row, r) => {
    const isRated = ratings.has(row.item);
    Object.assign(row, isRated ? {colour: '--gold', shape: 1} : {colour: '--accent', shape: 0});
    if (isRated || top.has(row.item)) map.found.add(r);
  });
  place = state ? standing() : null;
  map.stand(place && {x: place[0], y: place[1]});
  $('standing').textContent = place ? standingText() : `Each dot is a ${noun}. Near ones are liked by the same people, `
    + `and large ones have many ratings. Rate one, and you appear.`;
  showTable();
}

function standingText() {
  const far = Math.hypot(...place), ahead = row => (row.x*place[0] + row.y*place[1])/(far || 1);
  const often = [...map.rows].sort((a, b) => b.n - a.n).slice(0, 200);
  const some = often.sort((a, b) => ahead(b) - ahead(a)).slice(0, 3).map(row => row.name);
  const [x, y] = place.map(v => say(v));
  return `You stand at (${x}, ${y}), on the side of ${some.join('; ')}. The farther from the middle, the more `
    + `your taste differs from that of most. Squares are your ${noun}s, strong dots your list.`;
}

// somebody's own list

async function readFile(file) {
  try {
    if (file.size > 2e7) throw Error('the file is too large');
    take(personalList(new Uint8Array(await file.arrayBuffer())));
  } catch (error) { $('imported').textContent = `${file.name}: ${error.message}`; }
}

function take(list) {
  const stars = ranks ? list.map(() => 1) : rescaled(list.map(row => row.rating), [levels[0], levels.at(-1)]);
  const unknown = [];
  list.forEach(({title}, r) => {
    const k = find(title);
    if (k === null) unknown.push(title);
    else ratings.set(k, stars[r]);
  });
  const some = unknown.slice(0, 5).join('; ') + (unknown.length > 5 ? '; …' : '');
  $('imported').textContent = `${list.length - unknown.length} of ${list.length} titles are known here`
    + (unknown.length ? `; not ${some}` : '');
  changed();
  ask();
}

const quoted = text => `"${text.replaceAll('"', '""')}"`;

function save() {
  const lines = ['title,rating', ...[...ratings].map(([k, v]) => `${quoted(titles[k])},${v}`)];
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([lines.join('\n') + '\n'], {type: 'text/csv'}));
  link.download = 'my-ratings.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// what is said once

function start() {
  $('intro').textContent = ranks ? `Say which ${noun}s you like. Your list changes with every answer, and nothing leaves `
    + 'your browser.' : `Rate a few ${noun}s. Your list changes with every star, and nothing leaves your browser.`;
  $('askHead').textContent = ranks ? `Do you like this ${noun}?` : `Have you seen this ${noun}?`;
  if (noun === 'item') $('askHead').textContent = 'Do you know this one?';
  $('findHead').textContent = `Find a ${noun === 'item' ? 'title' : noun}`;
  $('nameHead').textContent = noun;
  $('notice').replaceChildren(...data.notice.map(text => make('p', text)));
  for (const least of [0, 10, 50, 100].filter(n => n < Math.max(...counts)))
    $('least').append(new Option(least ? `only ${noun}s with ${least} ratings or more` : `all ${noun}s`, least));
  $('mineHead').tabIndex = -1;
}

$('next').addEventListener('click', goOn);
// a click or a tap is an answer; with the arrow keys the stars pass by on the way to the right one
$('answer').addEventListener('pointerup', () => setTimeout(() => { if (ratings.has(asked)) ask(); }, 250));
$('search').addEventListener('input', search);
$('least').addEventListener('change', () => {
  showList();
  showMap();
});
$('clear').addEventListener('click', () => {
  ratings.clear();
  skipped.clear();
  $('imported').textContent = '';
  changed();
  ask();
});
$('save').addEventListener('click', save);
$('file').addEventListener('change', event => { if (event.target.files[0]) readFile(event.target.files[0]); });
addEventListener('dragover', event => {
  event.preventDefault();
  $('drop').hidden = false;
});
addEventListener('dragleave', event => { if (!event.relatedTarget) $('drop').hidden = true; });
addEventListener('drop', event => {
  event.preventDefault();
  $('drop').hidden = true;
  if (event.dataTransfer.files[0]) readFile(event.dataTransfer.files[0]);
});
start();
startMap();
changed();
ask();
