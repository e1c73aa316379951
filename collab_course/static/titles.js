// Somebody's own list, read as `read_ratings` does, and its titles found as `TitleIndex` does.

const synonyms = data.synonyms;                          // the word lists of collab_course.columns
const articles = data.articles.join('|');

const folded = text => text.replace(/ẞ/g, 'ss').toLowerCase().replace(/ß/g, 'ss').replace(/ς/g, 'σ').replace(/ſ/g, 's');

function titleKey(title) {
  const text = title.trim().replace(new RegExp(`^(.*), (${articles})$`, 'i'), '$2 $1');
  const plain = folded(text).replaceAll('&', ' and ').replaceAll("'", '').normalize('NFKD')
    .replace(/\p{Mn}/gu, '').replaceAll('’', '');
  let found = plain.match(/[\p{L}\p{N}_]+/gu) ?? [];
  if (found.length > 1 && ['the', 'a', 'an'].includes(found[0])) found = found.slice(1);
  return found.join(' ') || folded(text);
}

const withoutBrackets = text => text.replace(/\s*\([^()]*\)/g, '');

function titleParts(title) {
  let text = String(title).trim(), year = null;
  const end = text.match(/\s*\((\d{4})(?:[-–]\d{0,4})?\)$/);
  if (end) [text, year] = [text.slice(0, end.index), Number(end[1])];
  const others = [...text.matchAll(/\(([^()]*)\)/g)].map(m => m[1].replace(/^a\.?k\.?a\.?\s+/i, ''));
  const names = [withoutBrackets(text), ...others, text].filter(name => name.trim());
  return [[...new Set(names.map(titleKey))], year];
}

const pieces = title => withoutBrackets(String(title)).split(/:| - /).map(titleKey);

function titleIndex(known) {
  const exact = new Map(known.map((name, k) => [name, k])), byKey = new Map(), byHead = new Map();
  const add = (map, key, pair) => map.set(key, [...map.get(key) ?? [], pair]);
  known.forEach((name, k) => {
    const [keys, year] = titleParts(name);
    for (const key of keys) add(byKey, key, [k, year]);
    add(byHead, pieces(name)[0], [k, year]);
  });
  const near = (year, other, distance) => year === null || other === null
    ? distance === null || year === other : distance !== null && Math.abs(year - other) <= distance;

  return title => {                                      // the number of the one title that is meant, or null
    if (exact.has(title)) return exact.get(title);
    const [keys, year] = titleParts(title);
    const sameKey = keys.flatMap(key => byKey.get(key) ?? []);
    const samePiece = year === null ? []
      : pieces(title).flatMap(piece => [...byHead.get(piece) ?? [], ...byKey.get(piece) ?? []]);
    for (const [candidates, distance] of [[sameKey, 0], [sameKey, 1], [sameKey, null], [samePiece, 0]]) {
      const found = new Set(candidates.filter(([, other]) => near(year, other, distance)).map(([k]) => k));
      if (found.size === 1) return [...found][0];
      if (found.size) return null;
    }
    return null;
  };
}

// stars of one scale on another

function usualScale(values) {
  const low = Math.min(...values), high = Math.max(...values), halves = values.some(v => v % 1 !== 0);
  if (!halves && low >= 1 && high <= 5) return [1, 5];
  return [[.5, 5], [1, 10], [0, 10], [0, 100]].find(([a, b]) => a <= low && high <= b) ?? [low, high];
}

function rescaled(values, [bottom, top]) {
  if (!values.length) return [];
  const [low, high] = usualScale(values);
  const share = v => high > low ? Math.min(1, Math.max(0, (v - low)/(high - low))) : .5;
  return values.map(v => bottom + (top - bottom)*share(v));
}

// a table from the bytes of a file

function textOf(bytes) {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) throw Error('this is a zip archive: unpack it and take ratings.csv');
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder('utf-16be').decode(bytes);
  let text;
  try { text = new TextDecoder('utf-8', {fatal: true}).decode(bytes); }
  catch { text = new TextDecoder('windows-1252').decode(bytes); }
  if (/[\x00-\x08\x0e-\x1f\x7f-\x9f]/.test(text)) throw Error('this is no text: a CSV file is needed');
  return text.replace(/^\ufeff/, '');
}

function csvRows(text, sep) {
  const rows = [[]];
  let cell = '', quoted = false;
  const endCell = () => {
    rows.at(-1).push(cell.trim());
    cell = '';
  };
  for (let k = 0; k < text.length; k++) {
    const c = text[k];
    if (quoted && c === '"' && text[k + 1] === '"') cell += text[++k];
    else if (c === '"' && (quoted || !cell.trim())) {
      quoted = !quoted;
      if (quoted) cell = '';
    } else if (quoted) cell += c;
    else if (c === sep) endCell();
    else if (c === '\n') {
      endCell();
      rows.push([]);
    } else if (c !== '\r') cell += c;
  }
  endCell();
  return rows.filter(row => row.length > 1 || row[0]);
}

function separatorOf(text) {
  const head = text.slice(0, 65536);
  const columns = sep => {
    let widths = csvRows(head, sep).slice(0, 50).map(row => row.length);
    if (widths.length > 2) widths = widths.slice(0, -1);
    return widths.length && Math.max(...widths) === Math.min(...widths) ? widths[0] : 0;
  };
  return ['\t', ';', ',', '|'].reduce((best, sep) => columns(sep) > columns(best) ? sep : best);
}

const plainName = name => folded(String(name).split(':')[0]).replace(/[\s\p{P}\p{S}\p{Z}_]+/gu, '');
const isNumber = text => /^\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?\s*$/i.test(text);

function called(names, role, taken = []) {
  for (const word of synonyms[role]) {
    const k = names.findIndex((name, c) => name === word && !taken.includes(c));
    if (k >= 0) return k;
  }
  return null;
}

function columnsOf(header) {
  const names = header.map(plainName), rating = called(names, 'rating');
  if (called(names, 'user') !== null) throw Error('this table has a column of users: one person’s list is needed');
  if (rating === null) throw Error(`there is no column for the rating: the table has only ${header.join(', ')}`);
  const title = called(names, 'title', [rating]) ?? called(names, 'item', [rating]);
  if (title === null) throw Error(`there is no column for the title: the table has only ${header.join(', ')}`);
  const year = names.indexOf('year');
  return {rating, title, year: year < 0 || year === title || year === rating ? null : year};
}

const withYear = (title, year) => {
  const number = Math.trunc(Number(year));
  return year?.trim() && number >= 1000 && number <= 2999 && !/\(\d{4}\)$/.test(title) ? `${title} (${number})` : title;
};

// the list of a file as [{title, rating}], the last rating of a title counts; rows without a rating are left out
function personalList(bytes) {
  const text = textOf(bytes), [header, ...rows] = csvRows(text, separatorOf(text));
  if (!rows.length) throw Error('the table of ratings is empty');
  const {rating, title, year} = columnsOf(header), list = new Map();
  const zeroIsNone = ['bookrating', 'myrating'].includes(plainName(header[rating]));
  for (const row of rows) {
    if (!isNumber(row[rating] ?? '')) continue;
    if (zeroIsNone && Number(row[rating]) === 0) continue;
    const name = withYear(row[title], year === null ? '' : row[year] ?? '');
    list.delete(name);
    list.set(name, Number(row[rating].replace(',', '.')));
  }
  if (!list.size) throw Error('no row of the table has a rating');
  return [...list].map(([name, stars]) => ({title: name, rating: stars}));
}
