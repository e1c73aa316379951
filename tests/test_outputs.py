"""No committed output passes a rating of ML-100K on: its licence forbids it.

A rating is a user, a film and the star that this user really gave. `Ratings` knows the real ones and looks
for them in what notebooks show: tables (HTML or printed), grids of users by films, lines, tuples, records
with names, prose. Counts, means and predictions are no ratings, and a made table may hit a real one by
chance. So:

- where names say which column is the user and which the star, and films have titles, one is too many;
- where nothing says so, half of the rows (or cells of a grid) that could be ratings must be real ones.

Not looked into: pictures, and tensors of indices.
"""
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

root = Path(__file__).resolve().parent.parent
notebooks = sorted((root/'nbs').rglob('*.ipynb'))

USER = re.compile(r'\b(user|users|user_?id|person|people|who|viewer|customer)\b', re.I)
MOVIE = re.compile(r'\b(movie|movies|film|films|item|items|(movie|film|item)_?id)\b', re.I)
STAR = re.compile(r'\b(rating|stars?|gave|given|vote|score|target|targ|true|actual|real)\b', re.I)
YEAR = re.compile(r'\((?:\d{4}|V)\)')                              # what a title ends with
PLURAL = re.compile(r'\s+(?!stars)[a-z]+s\b')
NUMBER = re.compile(r'(?<![\w.,/-])\d+(?:\.\d+)?(?![\w/]|[.,]\d)')
STAMP = re.compile(r'(?<!\d)8[789]\d{7}(?!\d)')                    # seconds, of 1997 and 1998: ML-100K's


# a name, and the number that follows it; not a list of numbers
AFTER = r'\b[\'"]?\s*[:=]{0,2}\s*(?:(?:number|no\.|id)\s+)?'
NAMED = {name: rf'\b(?:{words}){AFTER}({value})(?![\w])(?!\.\d*[1-9])' for name, words, value in [
    ('user', r'user(?:_?id)?', r'\d{1,3}'), ('movie', r'(?:movie|item|film)(?:_?id)?', r'\d{1,4}'),
    ('rating', 'rating|stars?|gave|given', r'[1-5](?:\.0)?')]}
# where what is said about a user ends: in prose, and in a program
END = {False: r'\n\s*\n|(?<=[.;])\s+(?=[A-Z])|\}', True: r'\n|\}'}


class HTMLTables(HTMLParser):
    "All tables of a page: per table (rows of texts, number of header rows), cells that span several repeated"
    def __init__(self, html):
        super().__init__()
        self.tables, self.open = [], []
        self.cell = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        span = {k: int(v) for k, v in attrs if k in ('rowspan', 'colspan') and (v or '').isdigit()}
        if tag == 'table': self.open.append(dict(rows=[], heads=0, down={}, inhead=False))
        elif not self.open: return
        elif tag == 'thead': self.open[-1]['inhead'] = True
        elif tag == 'tr':
            self.open[-1]['rows'].append([])
            if self.open[-1]['inhead']: self.open[-1]['heads'] += 1
            self.fill()
        elif tag in ('td', 'th'):
            self.cell = dict(text='', down=span.get('rowspan', 1), right=span.get('colspan', 1))

    def handle_data(self, data):
        if self.cell is not None: self.cell['text'] += data

    def handle_endtag(self, tag):
        if not self.open: return
        table = self.open[-1]
        if tag == 'table':
            self.open.pop()
            self.tables.append((table['rows'], table['heads']))
        elif tag == 'thead': table['inhead'] = False
        elif tag in ('td', 'th') and self.cell is not None and table['rows']:
            for _ in range(self.cell['right']):
                if self.cell['down'] > 1:
                    table['down'][len(table['rows'][-1])] = [self.cell['down'] - 1, self.cell['text'].strip()]
                table['rows'][-1].append(self.cell['text'].strip())
            self.cell = None
            self.fill()

    def fill(self):
        "Cells from above that reach into the row"
        table = self.open[-1]
        row = table['rows'][-1]
        while table['down'].get(len(row), [0])[0]:
            left = table['down'][len(row)]
            left[0] -= 1
            row.append(left[1])


def text_tables(text):
    "The tables that pandas printed (and Markdown's): columns two blanks, a tab or a bar apart, right-aligned"
    for block in re.split(r'\n\s*\n', text):
        lines = [re.sub(r'\s*\\$', '', o).strip().strip('|').strip() for o in block.splitlines()]
        lines = [o for o in lines if o and not re.fullmatch(r'[-:| ]+', o)]
        rows = [re.split(r'\s{2,}|\t|\s*\|\s*', o) for o in lines]
        if len(rows) < 2: continue
        heads = 2 if len(rows[1]) == 1 and len(rows) > 2 else 1
        width = max(map(len, rows))
        right = [[''] * (width - len(o)) + o for o in rows]
        named = [o + [''] * (width - 1) for o in rows[1:heads]]                        # the index has a name
        yield right[:1] + named + right[heads:], heads


def whole(cell):
    "The whole number that a cell shows, alone or after the word `user`; else None"
    found = re.fullmatch(r'(?:user\s+)?(\d{1,7})(?:\.0+)?', cell.strip(), re.I)
    return int(found[1]) if found else None


def numbers(text):
    "The numbers of a piece of text as they are written; in CSV, a comma parts them"
    return NUMBER.findall(text if ' ' in text.strip() else text.replace(',', ' '))


def counts_rows(column):
    "Whether each number of a column only counts rows: the one above is smaller by one, or that below larger"
    beside = zip([None] + column[:-1], column, column[1:] + [None])
    return [n is not None and (above == n - 1 or below == n + 1) for above, n, below in beside]


class Ratings:
    "The real ratings (user, movie, title, rating), and where a text or an output passes them on"
    def __init__(self, df):
        self.users = set(df['user'].tolist())
        self.stars = {}
        for user, movie, title, rating in zip(df['user'], df['movie'], df['title'], df['rating']):
            for item in (int(movie), title.strip()):
                self.stars.setdefault((int(user), item), set()).add(int(rating))
        self.movies = {item for _, item in self.stars if isinstance(item, int)}
        self.titles = {item for _, item in self.stars if isinstance(item, str)}
        self.short = {t[:k]: t for t in self.titles for k in (46, 47) if len(t) > k}    # as pandas cuts them

    def real(self, user, item, star): return star in self.stars.get((user, item), ())
    def star(self, cell): return n if (n := whole(cell)) in (1, 2, 3, 4, 5) else None

    def title(self, cell):
        cell = cell.strip().strip('\'"')
        if cell.endswith('...') and cell not in self.titles: return self.short.get(cell[:-3].rstrip())
        return cell if cell in self.titles else None

    def titles_in(self, text):
        "[(start, end, title)] of the titles that a text holds"
        found = []
        for end in [m.end() for m in YEAR.finditer(text)]:
            starts = [m.start() for m in re.finditer(r'(?<![^\W_])\S', text[max(0, end - 90):end])]
            for start in starts:
                start += max(0, end - 90)
                if text[start:end] in self.titles:
                    found.append((start, end, text[start:end]))
                    break
        return found

    # tables

    def in_table(self, rows, heads, hints=()):
        "The real ratings that a table holds; `hints`: users named beside it"
        width = max(map(len, rows), default=0)
        rows = [o + [''] * (width - len(o)) for o in rows]
        names = [' '.join(o[j] for o in rows[:heads]) for j in range(width)]
        return self._grid(rows, heads) or self._rows(rows[heads:], names, hints)

    def _rows(self, rows, names, hints):
        users = [j for j, o in enumerate(names) if USER.search(o) and not MOVIE.search(o)]
        movies = [j for j, o in enumerate(names) if MOVIE.search(o)]
        stars = [j for j, o in enumerate(names) if STAR.search(o)]
        found, sure, possible = [], [], 0
        index = counts_rows([whole(o[0]) for o in rows]) if not names[0].strip() else [False]*len(rows)
        for row, counts in zip(rows, index):
            if counts: row = [''] + row[1:]
            who = [(j, whole(row[j])) for j in (users or range(len(row))) if whole(row[j]) in self.users]
            who += [(None, o) for o in hints]
            what = [(j, self.title(o)) for j, o in enumerate(row) if self.title(o)]
            what += [(j, whole(row[j])) for j in movies if whole(row[j]) in self.movies]
            given = [(j, self.star(o)) for j, o in enumerate(row) if self.star(o)]
            given = [o for o in given if o[0] not in (*users, *movies)]
            tried = [(k, (u, i, s)) for j, u in who for m, i in what for k, s in given if len({j, m, k}) == 3]
            hit = [(k, o) for k, o in tried if self.real(*o)]
            possible += bool(tried)
            found += [o for _, o in hit[:1]]
            sure += [o for k, o in hit if users and k in stars and isinstance(o[1], str)]
        return sure or (found if found and 2*len(found) >= possible else [])

    def _grid(self, rows, heads):
        "Users down and films across, or the other way round"
        found, possible, titled = {False: [], True: []}, {False: 0, True: 0}, False
        for row in rows[heads:]:
            for side in row[:2]:
                for j in range(1, len(row)):
                    star = self.star(row[j])
                    if star is None: continue
                    for top in [o[j] for o in rows[:heads]]:
                        for turned, (who, what) in enumerate([(side, top), (top, side)]):
                            user, item = whole(who), self.title(what) or whole(what)
                            if user not in self.users or item not in self.titles | self.movies: continue
                            possible[turned] += 1
                            if self.real(user, item, star):
                                found[turned].append((user, item, star))
                                titled |= isinstance(item, str)
        return next((f for turned, f in found.items()
                     if f and 2*len(f) >= possible[turned] and (len(f) > 1 or titled)), [])

    # texts

    def in_lines(self, text, hints=(), sure_only=False):
        "Lines that hold a title, a user and a star, and rows of bare numbers: user, movie, star"
        found, possible, sure, triples, tried = [], 0, [], [], 0
        lines = text.splitlines()
        leading = [re.match(r'\s*(\d+)\b', o) for o in lines]
        for line, index in zip(lines, counts_rows([o and int(o[1]) for o in leading])):
            places = self.titles_in(line)
            for k, (start, end, title) in enumerate(places):
                before = line[places[k - 1][1] if k else 0:start]
                after = line[end:places[k + 1][0] if k + 1 < len(places) else None]
                named = [int(o) for o in re.findall(r'\buser\W{0,3}(\d+)', before + ' ' + after, re.I)]
                there = numbers(before)[index and not k:] + numbers(after)
                pairs = [(whole(u), self.star(s)) for i, u in enumerate(there) for j, s in enumerate(there)
                         if i != j and whole(u) in self.users and self.star(s)]
                pairs += [(u, self.star(s)) for u in hints for s in there if self.star(s)]
                hit = [(u, title, s) for u, s in pairs if self.real(u, title, s)]
                possible += bool(pairs)
                found += hit[:1]
                sure += [o for o in hit if o[0] in named]
            for group in re.findall(r'[^][(){}\n]+', line):
                row = [whole(o) for o in numbers(group)]
                stamped = bool(STAMP.search(group))
                if re.search(r'[^\W\d_]', group) and not stamped or len(row) not in (3, 4, 5): continue
                runs = [o for o in zip(row, row[1:], row[2:])
                        if o[0] in self.users and o[1] in self.movies and o[2] in (1, 2, 3, 4, 5)]
                hit = [o for o in runs if self.real(*o)]
                tried += bool(runs)
                triples += hit[:1]
                if stamped: sure += hit
        if sure or sure_only: return sure
        if found and 2*len(found) >= possible: return found
        return triples if len(triples) > 1 and 2*len(triples) >= tried else []

    def in_words(self, text, code=False):
        """Ratings said with names, `user … movie … rating …`: a sentence, a printed row, a dictionary; in a
        program within one line"""
        found = []
        for m in re.finditer(NAMED['user'], text, re.I):
            around = re.split(END[code], text[m.end():m.end() + 160])[0]
            around = re.split(r'\busers?(?:_?id)?\b', around, flags=re.I)[0]
            items = [(o.span(1), int(o[1])) for o in re.finditer(NAMED['movie'], around, re.I)]
            items += [((a, b), t) for a, b, t in self.titles_in(around)]
            named = re.findall(NAMED['rating'], around, re.I)
            free = [o for o in NUMBER.finditer(around) if not any(a <= o.start() < b for (a, b), _ in items)]
            stars = named[:1] or [o[0] for o in free if not PLURAL.match(around, o.end())]
            found += [(int(m[1]), i, self.star(s)) for _, i in items for s in stars
                      if self.real(int(m[1]), i, self.star(s))]
        return found

    def in_source(self, source, code=False):
        "The real ratings that a text, or a program, says with names, or copies from the file"
        source = source.replace('\\t', '\t').replace('\\n', '\n')
        return self.in_words(source, code) or self.in_lines(source, sure_only=True)

    def in_output(self, output, source=''):
        "The real ratings that an output of a cell with this source passes on"
        hints = {int(o) for o in re.findall(r'\buser(?:_?id)?\b\W{1,8}(\d{1,3})\b', source)} & self.users
        data = dict(output.get('data', {}))
        data = [o for kind, o in data.items() if not kind.startswith('image/')]
        texts = [''.join(o) if isinstance(o, list) else o for o in data]
        texts = [o if isinstance(o, str) else json.dumps(o) for o in texts]
        texts += [''.join(output[k]) for k in ('text', 'traceback') if k in output]
        for text in texts:
            if '<table' in text: tables = HTMLTables(text).tables
            else: tables = list(text_tables(text))
            for rows, heads in tables:
                if found := self.in_table(rows, heads, hints): return found
            if '<table' in text: text = re.sub(r'<[^>]+>', '\n', re.sub(r'(?s)<table.*?</table>', '', text))
            if found := self.in_lines(text, hints) or self.in_words(text): return found
        return []

    def in_notebook(self, nb):
        "{cell id: real ratings} of a notebook: of its outputs, and of what its cells say"
        found = {}
        for cell in nb['cells']:
            source = ''.join(cell['source'])
            hits = [o for output in cell.get('outputs', []) for o in self.in_output(output, source)]
            hits = hits or self.in_source(source, code=cell['cell_type'] == 'code')
            if hits: found[cell.get('id')] = hits
        return found


@pytest.fixture(scope='module')
def ml100k(ml): return Ratings(ml.ratings)


@pytest.mark.parametrize('path', notebooks, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_no_real_rating_in_a_notebook(path, ml100k):
    found = ml100k.in_notebook(json.loads(path.read_text(encoding='utf-8')))
    found = {cell: len(o) for cell, o in found.items()}                # what a log may show
    assert found == {}, "ML-100K's licence forbids to pass its ratings on: show made ones, means, counts"


def test_no_real_rating_in_a_text_or_program(ml100k):
    folders = '*.md', '.ci/*', 'collab_course/*.py', 'nbs/contenders/*', 'tests/*.py'
    files = [p for o in folders for p in root.glob(o) if p.is_file() and p.suffix in ('', '.py', '.md')]
    texts = {p: p.read_text(encoding='utf-8') for p in files}
    assert len(texts) > 40
    assert [p for p, o in texts.items() if ml100k.in_source(o, code=p.suffix != '.md')] == []


# that these tests can fail: made ratings, shown in every way that a notebook might

def _made():
    "Ratings by 40 people of 30 films, made by a rule"
    long = 'Road, which is long and has no end at all, The'
    titles = [f'{"Road" if k % 3 else long} {k} ({1960 + k})' for k in range(30)]
    rows = [(u, 100 + k, 1 + (u*u + 3*k*u + k) % 5, 881000000 + 97*u + k, titles[k])
            for k in range(30) for u in range(50, 90) if (u*k + u + k) % 7 < 4]
    df = pd.DataFrame(rows, columns=['user', 'movie', 'rating', 'timestamp', 'title'])
    return df.sample(frac=1, random_state=0).reset_index(drop=True)


def shown(df, **kwargs):
    "A cell that ends with `df`"
    data = {'text/html': [df.to_html(**kwargs)], 'text/plain': repr(df).splitlines(True)}
    return cell(dict(output_type='execute_result', data=data, metadata={}))


def display(**data):
    "A cell that displays something, MIME types written with _"
    data = {k.replace('_', '/'): v for k, v in data.items()}
    return cell(dict(output_type='display_data', data=data, metadata={}))


def cell(*outputs, source='df'):
    return dict(cell_type='code', id='a', source=source.splitlines(True), outputs=list(outputs))


def printed(text): return cell(dict(output_type='stream', name='stdout', text=text.splitlines(True)))
def plain(o): return display(text_plain=[repr(o)])
def page(html): return display(text_html=html, text_plain=['<IPython.core.display.HTML object>'])
def markdown(text): return dict(cell_type='markdown', id='a', source=text.splitlines(True))


made = _made()
real = Ratings(made)
few = made.head()
one = few.iloc[0]
batch, numbered = few[['user', 'title', 'rating']], few[['user', 'movie', 'rating']]
ours = made[made.user == 61][['title', 'rating']].head(4)                # who it was says only the program
of_61 = 'ratings[ratings.user == 61]'
wrong = made.assign(rating=made.rating % 5 + 1)                          # nobody gave these
long_titles, short_titles = (made[(made.title.str.len() > 30) == k] for k in (True, False))
grid = made.pivot(index='user', columns='title', values='rating').iloc[:6, :5]
ids = made.pivot(index='user', columns='movie', values='rating').iloc[:6, :5]
wide = short_titles.pivot(index='user', columns='title', values='rating')
groups = made.sort_values('user').set_index(['user', 'title'])[['rating']].head(9)
bars = ['|user|title|rating|', '|--|--|--|'] + [f'|{o.user}|{o.title}|{o.rating}|' for o in few.itertuples()]
REAL = dict(
    head=shown(few), head_printed=printed(few.to_string()), head_no_index=printed(few.to_string(index=False)),
    head_movies=shown(numbered), head_movies_printed=plain(numbered),
    other_names=shown(few.set_axis(['who', 'what', 'stars', 'when', 'film'], axis=1)),
    no_names=shown(batch.set_axis([0, 1, 2], axis=1)), other_order=shown(few[['rating', 'title', 'user']]),
    batch=page(batch.to_html()), results=page(batch.assign(rating_pred=3.97).to_html()),
    floats=shown(batch.astype({'rating': float})), one_row=shown(few[:1]),
    long_titles=shown(long_titles.head()),
    one_real_among_made=shown(pd.concat([batch[:1], wrong[['user', 'title', 'rating']][1:9]])),
    user_as_index=shown(batch.set_index('user')), groups=shown(groups),
    row=plain(one), row_as_list=plain(one.tolist()),
    rows_as_tuples=plain([*batch.itertuples(index=False, name=None)]),
    rows_as_lists=plain(numbered.values.tolist()), named_tuple=plain(next(few.itertuples())),
    dictionary=plain(numbered.to_dict('records')), one_dictionary=plain(batch.iloc[0].to_dict()),
    array=plain(numbered.to_numpy()), csv=printed(batch.to_csv()),
    file=printed(few[['user', 'movie', 'rating', 'timestamp']].to_csv(sep='\t', header=False)),
    lines=printed('\n'.join(f'{o.title}: {o.rating} by {o.user}' for o in few.itertuples())),
    sentence=printed(f'user {one.user} gave {one.title} {one.rating} stars'),
    table=display(text_markdown='\n'.join(bars)),
    crosstab=shown(grid), crosstab_ids=shown(ids), crosstab_turned=shown(grid.T),
    crosstab_ids_turned=shown(ids.T),
    crosstab_printed=plain(ids), crosstab_wide=printed(wide.to_string(line_width=90)),
    crosstab_gaps=shown(ids.astype('Int64').astype(str).replace('<NA>', '')),
    crosstab_holes_filled=shown(grid.fillna(3.1416)), one_film=shown(grid.iloc[:, :1]),
    theirs=shown(ours) | dict(source=of_61),
    theirs_as_list=plain(ours.values.tolist()) | dict(source='user = 61'),
    prose=markdown(f'It has seen numbers: user {one.user} gave\nitem {one.movie} a {one.rating}. No more.'),
    prose_with_title=markdown(f'So user {one.user} gave *{one.title}* {one.rating} stars.'),
    docstring=cell(source=f'def f():\n    "User {one.user} rated movie {one.movie}: {one.rating}"'),
    copied=cell(source=f"raw = '{one.user}\\t{one.movie}\\t{one.rating}\\t{one.timestamp}'"),
    error=cell(dict(output_type='error', ename='E', evalue='', traceback=[str(one.to_dict())])))

means = made.groupby('title').rating.agg(['mean', 'size']).rename(columns={'size': 'n_ratings'})
predicted = few[['user', 'title']].assign(prediction=[4.2968, 3.5, 2.75, 1.01, 4.99])
MADE = dict(
    means=shown(means), means_reset=shown(means.reset_index().round(2)),
    counts=shown(made.title.value_counts().to_frame()),
    curve=shown(pd.DataFrame({'train': [.9], 'valid': [.8]})),
    raters=shown(made.user.value_counts().to_frame('ratings').head()), predicted=shown(predicted),
    predictions=shown(grid*.9 + .01), recommended=shown(predicted[['title', 'prediction']]),
    titles=plain(few.title.tolist()), users=plain(few.user.tolist()), one_number=plain(4.2968),
    stars=plain([5, 4, 3]),
    rows_that_nobody_gave=shown(wrong.head(9)), grid_that_nobody_gave=shown(grid % 5 + 1),
    ids_that_nobody_gave=shown(ids % 5 + 1),
    lines_nobody_gave=printed('\n'.join(f'{o.user} {o.title} {o.rating}' for o in wrong[:9].itertuples())),
    names=shown(pd.DataFrame({'Alien': [5, 1], 'Babe': [2, 4]}, index=['Ann', 'Bob'])), empty=shown(few[:0]),
    similar=shown(pd.DataFrame(.5, index=few.title, columns=few.title)),
    without_stars=shown(few[['user', 'movie', 'timestamp', 'title']]),
    without_users=shown(few[['title', 'rating']]),
    prose=markdown(f'User {one.user} has rated 5 films, such as item {one.movie}. One of 3 rows says it.'),
    lists=cell(source=f'dict(user=[{one.user}, 9], movie=[{one.movie}, 8], rating=[{one.rating}, 2])'))


def in_made(c): return real.in_notebook(dict(cells=[markdown('# Made'), c]))


@pytest.mark.parametrize('name', REAL)
def test_a_real_rating_is_found(name):
    found = in_made(REAL[name])
    assert set(found) == {'a'} and all(real.real(*o) for o in found['a'])


@pytest.mark.parametrize('name', MADE)
def test_what_is_no_rating_is_not_found(name): assert in_made(MADE[name]) == {}


def test_a_styled_grid_is_found():
    pytest.importorskip('jinja2')
    for df in (grid, ids, grid.rename(index='user {}'.format)):
        assert in_made(page(df.style.format(precision=0, na_rep='').background_gradient().to_html()))
        assert not in_made(page((df % 5 + 1).style.format(precision=0, na_rep='').to_html()))


def test_the_real_head_is_found(ml, ml100k):
    nb = dict(cells=[shown(ml.ratings.head())])
    assert len(ml100k.in_notebook(nb)['a']) > 4
    assert ml100k.in_notebook(dict(cells=[shown(ml.ratings.head().drop(columns='rating'))])) == {}
