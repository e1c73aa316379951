// A map of rows {name, x, y, colour, shape, size, lines} on a canvas: move, zoom, pinch, hover, labels.
// Used by map.html and page.html. `tip` is the box that describes the row under the pointer.

const corners = {                                       // shape 0 is a disc, 6 a small one
  1: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  2: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  3: [[0, -1.2], [1.1, .9], [-1.1, .9]],
  4: [[0, 1.2], [1.1, -.9], [-1.1, -.9]],
  5: [[-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4],
      [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]],
};
const shapes = ['●', '■', '◆', '▲', '▼', '✚', '·'];     // the same in a legend
const edge = {left: 46, right: 10, top: 10, bottom: 40}; // pixels around the plot

const kindOf = row => row.colour + '|' + row.shape;

function rangeOf(rows, key) {
  let low = Infinity, high = -Infinity;
  for (const row of rows) {
    low = Math.min(low, row[key]);
    high = Math.max(high, row[key]);
  }
  return [low, high];
}

// numbers at round distances from `low` to `high`, about `wanted` of them
function ticks(low, high, wanted) {
  const rough = (high - low)/Math.max(1, wanted), power = 10**Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m*power).find(s => s >= rough*.999);
  const res = [];
  for (let k = Math.ceil(low/step); k*step <= high; k++) res.push(k*step);
  return {step, values: res};
}

const tickText = (value, step) => value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
const shortened = name => name.length > 30 ? name.slice(0, 29) + '…' : name;

function tasteMap(canvas, tip, rows, {xlabel = '', ylabel = ''} = {}) {
  const ink = canvas.getContext('2d');
  const xs = rangeOf(rows, 'x'), ys = rangeOf(rows, 'y');
  const found = new Set(), hidden = new Set();          // numbers of rows to point out; kinds not to be shown
  const pointers = new Map();                           // where fingers, or the mouse, hold the map
  const order = rows.map((row, k) => k).sort((a, b) => weight(rows[b]) - weight(rows[a]));
  let view, hovered = null, you = null, moved = 0;      // view: the pixel of (0, 0), and pixels for a unit
  let colours = {};                                     // of the style sheet, as long as a drawing lasts

  function weight(row) { return row.n ?? row.x**2 + row.y**2; }

  const colour = name => colours[name] ??= getComputedStyle(canvas).getPropertyValue('--' + name).trim();
  const plot = () => ({left: edge.left, right: canvas.clientWidth - edge.right,
                       top: edge.top, bottom: canvas.clientHeight - edge.bottom});

  // from data to pixels and back

  function home() {
    const box = plot(), pad = 16;
    const sx = (box.right - box.left - 2*pad)/(xs[1] - xs[0] || 1);
    const sy = (box.bottom - box.top - 2*pad)/(ys[1] - ys[0] || 1);
    view = {sx, sy, ox: box.left + pad - xs[0]*sx, oy: box.top + pad + ys[1]*sy};
  }
  const at = row => [view.ox + row.x*view.sx, view.oy - row.y*view.sy];
  const inside = (x, y, box) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
  const isShown = row => !hidden.has(kindOf(row));

  function nearest(x, y, reach = 12) {
    let best = null, least = reach**2;
    for (const row of rows) {
      const [rx, ry] = at(row), distance = (rx - x)**2 + (ry - y)**2;
      if (distance < least && isShown(row)) [best, least] = [row, distance];
    }
    return best;
  }

  // drawing

  function dot(row, alpha, size) {
    const [x, y] = at(row);
    ink.globalAlpha = alpha;
    ink.fillStyle = row.colour.startsWith('--') ? colour(row.colour.slice(2)) : row.colour;
    ink.beginPath();
    if (corners[row.shape]) for (const [a, b] of corners[row.shape]) ink.lineTo(x + a*size, y + b*size);
    else ink.arc(x, y, row.shape === 6 ? size*.7 : size, 0, 7);
    ink.fill();
    ink.globalAlpha = 1;
  }

  function ring(row, size) {
    const [x, y] = at(row);
    ink.strokeStyle = colour('ink');
    ink.lineWidth = 2;
    ink.beginPath();
    ink.arc(x, y, size, 0, 7);
    ink.stroke();
    ink.lineWidth = 1;
  }

  function line(x1, y1, x2, y2, style) {
    ink.strokeStyle = style;
    ink.beginPath();
    ink.moveTo(x1, y1);
    ink.lineTo(x2, y2);
    ink.stroke();
  }

  function drawAxes(box) {
    const faint = colour('faint'), strong = colour('line');
    ink.fillStyle = colour('soft');
    ink.textAlign = 'center';
    const across = ticks((box.left - view.ox)/view.sx, (box.right - view.ox)/view.sx, (box.right - box.left)/90);
    for (const value of across.values) {
      const x = view.ox + value*view.sx;
      line(x, box.top, x, box.bottom, value === 0 ? strong : faint);
      ink.fillText(tickText(value, across.step), x, box.bottom + 15);
    }
    ink.textAlign = 'right';
    const up = ticks((view.oy - box.bottom)/view.sy, (view.oy - box.top)/view.sy, (box.bottom - box.top)/70);
    for (const value of up.values) {
      const y = view.oy - value*view.sy;
      line(box.left, y, box.right, y, value === 0 ? strong : faint);
      ink.fillText(tickText(value, up.step), box.left - 5, y + 4);
    }
    ink.textAlign = 'center';
    ink.fillText(xlabel, (box.left + box.right)/2, box.bottom + 33, box.right - box.left);
    ink.save();
    ink.translate(12, (box.top + box.bottom)/2);
    ink.rotate(-Math.PI/2);
    ink.fillText(ylabel, 0, 0, box.bottom - box.top);
    ink.restore();
    ink.textAlign = 'left';
  }

  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  function boxOf(row) {
    const [x, y] = at(row), size = row.size ?? 3.5;
    return {left: x - size, right: x + size, top: y - size, bottom: y + size};
  }

  // where a label may stand beside its dot: right, left, above, below
  function places([x, y], width, size) {
    const gap = size + 3, corners = [[x + gap, y - 7], [x - gap - width, y - 7],
                                     [x - width/2, y - gap - 14], [x - width/2, y + gap]];
    return corners.map(([left, top]) => ({left, top, right: left + width, bottom: top + 14}));
  }

  // labels of the rows in view, the most important first, none over another
  function drawLabels(box) {
    const taken = [{left: box.right - 116, right: box.right, top: 0, bottom: 42}];      // the buttons
    const labels = [];
    const wanted = found.size ? [...found] : order;
    const marked = [...found].slice(0, 60).map(k => ({k, ...boxOf(rows[k])}));     // labels keep off their dots
    const first = hovered ? [rows.indexOf(hovered)] : [];
    const most = Math.min(60, (box.right - box.left)*(box.bottom - box.top)/9000);
    if (you) taken.push({left: at(you)[0] - 22, right: at(you)[0] + 22, top: at(you)[1] - 12, bottom: at(you)[1] + 26});
    for (const k of new Set([...first, ...wanted])) {
      if (labels.length >= most) break;
      const row = rows[k], [x, y] = at(row);
      if (!isShown(row) || !inside(x, y, box)) continue;
      const text = shortened(row.name), size = row.size ?? 3.5;
      const self = boxOf(row);
      const fits = place => inside(place.left, place.top, box) && inside(place.right, place.bottom, box)
        && !taken.some(other => overlap(place, other)) && !marked.some(dot => dot.k !== k && overlap(place, dot));
      if (taken.some(other => overlap(self, other))) continue;
      const place = places([x, y], ink.measureText(text).width, size).find(fits);
      if (place) {
        taken.push(place, self);
        labels.push({text, ...place});
      }
    }
    ink.lineWidth = 3;
    ink.strokeStyle = colour('paper');
    ink.fillStyle = colour('ink');
    for (const label of labels) {
      ink.strokeText(label.text, label.left, label.top + 11);
      ink.fillText(label.text, label.left, label.top + 11);
    }
    ink.lineWidth = 1;
    return labels;
  }

  function drawYou() {
    const [x, y] = at(you);
    ink.fillStyle = colour('gold');
    ink.strokeStyle = colour('ink');
    ink.lineWidth = 1.5;
    ink.beginPath();
    for (let k = 0; k < 10; k++) {
      const r = k % 2 ? 5 : 12, angle = Math.PI*(k/5 - .5);
      ink.lineTo(x + r*Math.cos(angle), y + r*Math.sin(angle));
    }
    ink.closePath();
    ink.fill();
    ink.stroke();
    ink.font = 'bold 13px system-ui, sans-serif';
    ink.textAlign = 'center';
    ink.lineWidth = 3;
    ink.strokeStyle = colour('paper');
    ink.strokeText('you', x, y + 25);
    ink.fillStyle = colour('ink');
    ink.fillText('you', x, y + 25);
    ink.textAlign = 'left';
    ink.lineWidth = 1;
  }

  function draw() {
    const dpr = window.devicePixelRatio || 1, box = plot();
    colours = {};
    canvas.width = canvas.clientWidth*dpr;
    canvas.height = canvas.clientHeight*dpr;
    ink.scale(dpr, dpr);
    ink.font = '12px system-ui, sans-serif';
    drawAxes(box);
    ink.save();
    ink.beginPath();
    ink.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    ink.clip();
    const alpha = found.size ? .3 : .75;
    rows.forEach((row, k) => { if (!found.has(k) && isShown(row)) dot(row, alpha, row.size ?? 3.5); });
    for (const k of found) if (isShown(rows[k])) dot(rows[k], 1, 2 + (rows[k].size ?? 3.5));
    if (hovered) ring(hovered, 5 + (hovered.size ?? 3.5));
    map.labels = drawLabels(box);
    if (you) drawYou();
    ink.restore();
  }

  // what the reader does

  function show(row, x, y) {
    tip.style.display = row ? 'block' : 'none';
    if (row !== hovered) {
      hovered = row;
      draw();
    }
    if (!row) return;
    tip.textContent = [row.name, ...row.lines].join('\n');
    tip.style.left = Math.max(0, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + 'px';
    tip.style.top = Math.max(0, Math.min(y + 14, innerHeight - tip.offsetHeight - 8)) + 'px';
  }

  function onCanvas(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function pan(dx, dy) {
    view.ox += dx;
    view.oy += dy;
    draw();
  }

  // what lies at the pixel (x, y) stays there
  function zoom(factor, x = canvas.clientWidth/2, y = canvas.clientHeight/2) {
    view = {sx: view.sx*factor, sy: view.sy*factor, ox: x + (view.ox - x)*factor, oy: y + (view.oy - y)*factor};
    draw();
  }

  function wholeMap() {
    home();
    draw();
  }

  function press(event) {
    pointers.set(event.pointerId, onCanvas(event));
    if (pointers.size === 1) moved = 0;
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that a test made up */ }
  }

  const middle = () => [0, 1].map(c => [...pointers.values()].reduce((sum, p) => sum + p[c]/pointers.size, 0));
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };

  function drag(event) {
    if (!pointers.has(event.pointerId)) return;
    const before = middle(), apart = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, onCanvas(event));
    const [x, y] = middle();
    moved += Math.hypot(x - before[0], y - before[1]) + (apart ? Math.abs(spread() - apart) : 0);
    pan(x - before[0], y - before[1]);
    if (apart) zoom(spread()/apart, x, y);
  }

  function release(event) {
    const isTap = pointers.delete(event.pointerId) && moved < 8 && event.type === 'pointerup';
    if (isTap && event.pointerType === 'touch') show(nearest(...onCanvas(event), 26), event.clientX, event.clientY);
  }

  const keys = {ArrowLeft: () => pan(40, 0), ArrowRight: () => pan(-40, 0), ArrowUp: () => pan(0, 40),
                ArrowDown: () => pan(0, -40), '+': () => zoom(1.3), '=': () => zoom(1.3), '-': () => zoom(1/1.3),
                '0': wholeMap, Home: wholeMap, Escape: () => show(null)};

  canvas.tabIndex = 0;
  canvas.addEventListener('mousemove', event => {
    if (!pointers.size) show(nearest(...onCanvas(event)), event.clientX, event.clientY);
  });
  canvas.addEventListener('mouseleave', () => show(null));
  canvas.addEventListener('pointerdown', press);
  canvas.addEventListener('pointermove', drag);
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('dblclick', wholeMap);
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY/400), ...onCanvas(event));
  }, {passive: false});
  canvas.addEventListener('keydown', event => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener('resize', wholeMap);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

  const map = {ink, at, found, hidden, draw, wholeMap, zoom, pan, nearest, labels: [],
               stand(place) { you = place; draw(); }, view: () => ({...view})};
  return map;
}

// buttons for those who have no wheel
function zoomButtons(box, map) {
  const actions = [['+', 'zoom in', () => map.zoom(1.4)], ['−', 'zoom out', () => map.zoom(1/1.4)],
                   ['⤢', 'whole map', map.wholeMap]];
  for (const [text, label, act] of actions) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = text;
    button.ariaLabel = button.title = label;
    button.addEventListener('click', act);
    box.append(button);
  }
}

// the rows of a table's body, cells as text
function fillBody(body, cells) {
  body.replaceChildren(...cells.map(texts => {
    const row = document.createElement('tr');
    texts.forEach((text, k) => {
      const cell = document.createElement(k ? 'td' : 'th');
      if (!k) cell.scope = 'row';
      else if (typeof text === 'number') cell.className = 'number';
      cell.textContent = typeof text === 'number' ? text.toFixed(2) : text;
      row.append(cell);
    });
    return row;
  }));
}
