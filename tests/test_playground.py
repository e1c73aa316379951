"The page of a recommender, in a browser: by keys and by touch, and against Python."
import base64, json, re
from functools import partial

import numpy as np, pandas as pd, pytest, torch

from chrome import Page, chromium
from collab_course.cli import main
from collab_course.dot_product import DotProduct, DotProductBias
from collab_course.errors import DataError, NotInModel
from collab_course.history import History
from collab_course.labels import DotProductLabels, LabelSet
from collab_course.maps import FactorMap
from collab_course.neural_net import CollabNN
from collab_course.playground import data_notice
from collab_course.progression import BiasOnly
from collab_course.ranking import EASE, MultDAE, Popularity
from collab_course.recommendation import Recommender
from collab_course.svdpp import SVDpp
from collab_course.titles import TitleIndex
from collab_course.training import recipes

pytestmark = [
    pytest.mark.skipif(chromium is None, reason='Chromium is not installed'),
    pytest.mark.filterwarnings('ignore::collab_course.recommendation.PoorListWarning'),
]
favourites = {
    'Star Wars (1977)': 5,
    'Titanic (1997)': 2,
    'Fargo (1996)': 5,
    'Scream (1996)': 1,
    'Casablanca (1942)': 4,
}


def data_of(html): return json.loads(re.search(r'const data = (.*);\n', html)[1])


@pytest.fixture(scope='module')
def trained():
    "The fourth model after an epoch on ML-100K"
    from collab_course.loaders import RatingsDataLoaders
    from collab_course.movielens import movielens
    try: ratings = movielens(verbose=False).ratings
    except DataError as e: pytest.skip(f'ML-100K is nowhere to be had: {e}')
    dls = RatingsDataLoaders.from_df(
        ratings, item_name='title', rating_name='rating', valid_pct=0.0, seed=0, bs=512
    )
    learn = recipes['fast'].learner(dls, lambda u, i: DotProductBias(u, i, 50))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 0.01, wd=0.4)
    return Recommender.from_learner(learn)


@pytest.fixture(scope='module')
def films(trained): return trained.to_html()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    with Page(tmp_path_factory.mktemp('browser')) as p: yield p


@pytest.fixture
def page(browser):
    browser.resize(*browser.size)
    browser.dark(False)
    return browser


def rate(page, ratings):
    page(
        f'(() => {{ for (const [t, v] of {json.dumps([*ratings.items()])}) rate(titles.indexOf(t), v); }})()'
    )


def listed(page):
    "Titles and numbers as they stand in the list"
    rows = page(
        "[...document.querySelectorAll('#list tbody tr')].map(r => "
        "[r.querySelector('.name').textContent, r.lastChild.textContent])"
    )
    return [name for name, _ in rows], [float(value.split()[0].replace('−', '-')) for _, value in rows]


def same_as_python(page, rec, ratings):
    "The list and all scores are Python's"
    known = page('titles')
    want = rec.recommend_new(ratings, items=known)
    names, values = listed(page)
    assert names == want[rec.item_name].tolist()
    assert np.allclose(values, want[rec.value_name], atol=0.006)  # two digits are shown
    gap = np.abs(np.array(page('state.scores')) - rec.predict_new(ratings, items=known)).max()
    assert gap < 1e-3, gap


# every kind of model


def made(make, n_users=60, n_items=40, n_ratings=900, low=1):
    "A recommender of made-up ratings, with a model whose numbers are drawn"
    rng = np.random.default_rng(0)
    pairs = torch.from_numpy(
        np.stack([rng.integers(1, n_users, n_ratings), rng.integers(1, n_items, n_ratings)], 1)
    )
    ratings = torch.from_numpy(rng.integers(low, 6, n_ratings)).float()
    titles = [f'Film {k} ({1950 + k})' for k in range(1, n_items)]
    classes = dict(user=['#na#', *range(1, n_users)], title=['#na#', *titles])
    torch.manual_seed(0)
    model = make(n_users, n_items, pairs)
    for p in model.parameters(): p.data = 0.4*torch.randn_like(p)
    return Recommender(model, classes, History(pairs, n_users, n_items, ratings))


def some_labels(n_users, n_items):
    parity = [[0, 0]] + [[1 + k % 2, 0] for k in range(n_items - 1)]
    people = [[0, 0]] + [[1, 2] if k % 3 == 0 else [k % 3, 0] for k in range(n_users - 1)]
    return [
        LabelSet('parity', 'item', ['#na#', 'odd', 'even'], torch.tensor(parity)),
        LabelSet('people', 'user', ['#na#', 3, 7], torch.tensor(people)),
    ]


kinds = {
    'dot product': lambda u, i, pairs: DotProduct(u, i, 4),
    'dot product, range': lambda u, i, pairs: DotProduct(u, i, 4, (0, 5.5)),
    'bias': lambda u, i, pairs: DotProductBias(u, i, 6),
    'bias, no range': lambda u, i, pairs: DotProductBias(u, i, 6, None),
    'biases alone': lambda u, i, pairs: BiasOnly(u, i, (0, 5.5)),
    'labels': lambda u, i, pairs: DotProductLabels(u, i, 4, labels=some_labels(u, i)),
    'SVD++': lambda u, i, pairs: SVDpp(u, i, 5, pairs=pairs),
    'SVD++, labels': lambda u, i, pairs: SVDpp(u, i, 5, pairs=pairs, labels=some_labels(u, i)),
    'EASE': lambda u, i, pairs: EASE(u, i, pairs, l2=20.0),
    'Mult-DAE': lambda u, i, pairs: MultDAE(u, i, 6, pairs),
}


@pytest.mark.parametrize('kind', kinds)
def test_every_kind_of_model_says_what_python_says(kind, page):
    rec = made(kinds[kind])
    page.open(rec.to_html())
    rng = np.random.default_rng(1)
    for n in (1, 2, 7, 20):
        chosen = rng.choice(rec.items[1:], n, replace=False)
        ratings = {str(title): int(rng.integers(1, 6)) for title in chosen}
        if rec.ranks: ratings = dict.fromkeys(ratings, 1)
        page("document.getElementById('clear').click()")
        rate(page, ratings)
        same_as_python(page, rec, ratings)
    assert page.errors == [] and page("document.getElementById('where').hidden") == (
        kind in ('biases alone', 'EASE')
    )


def test_the_seventh_model_and_its_error_bars(page):
    import collab_course.bayes as bayes

    def drawn(n_users, n_items, pairs):
        m = bayes.BayesianMF(n_users, n_items, 6)
        for side in (m.users, m.items):
            side.mean.normal_(0, 0.4)
            root = 0.1*torch.randn(len(side.mean), 7, 7)
            side.cov = root@root.mT + 0.01*torch.eye(7)
        m.users.precision = 5 + 10*torch.rand(7)
        m.typical.normal_(0, 0.2)
        m.from_rated.normal_(0, 0.2)
        m.mean_rating += 3.5
        m.noise_var -= 0.3
        return m

    rec = made(drawn)
    page.open(rec.to_html())
    rng = np.random.default_rng(1)
    for n in (1, 7, 20):
        chosen = [str(title) for title in rng.choice(rec.items[1:], n, replace=False)]
        stars = rng.integers(1, 6, n).tolist()
        page("$('clear').click()")
        rate(page, dict(zip(chosen, stars)))
        mean, cov = rec.model.fold_in([rec.items.index(title) for title in chosen], stars)
        vectors = torch.nn.functional.pad(rec.model.items.mean[1:, :-1], (0, 1), value=1.0)
        want = vectors@mean + rec.model.items.mean[1:, -1]
        assert np.abs(np.array(page('state.scores')) - want.numpy()).max() < 1e-3
        best = [i for i in want.argsort(descending=True).tolist() if rec.items[i + 1] not in chosen][:10]
        assert listed(page)[0] == [rec.items[i + 1] for i in best]
        variance = (vectors@cov*vectors).sum(1) + rec._item_variance[1:] + rec.model.rating_noise**2
        [asks] = rec.next_question(dict(zip(chosen, stars)))[rec.item_name]
        assert page('titles[asked]') == asks
        shown = page("[...document.querySelectorAll('#list td:last-child')].map(e => e.textContent)")
        assert np.allclose([float(o.split(' ± ')[1]) for o in shown], variance[best].sqrt(), atol=0.006)
        made_up = page(
            'best().map(({item, value}) => { const r = model.reasons(state, item);'
            ' return r.before + r.pushes.reduce((sum, p) => sum + p.push, 0) - value; })'
        )
        assert np.abs(made_up).max() < 1e-9 and page.errors == []


def test_what_has_no_page():
    for make in (
        lambda u, i, pairs: Popularity(u, i, pairs),
        lambda u, i, pairs: CollabNN((u, 5), (i, 5), (0, 5.5), 10),
    ):
        with pytest.raises(NotInModel, match='there is no page for a'): made(make).to_html()
    rec = made(kinds['bias'])
    with pytest.raises(DataError, match='unknown who rated what'):
        Recommender(rec.model, rec.classes).to_html()
    with pytest.raises(ValueError, match='n_items'): rec.to_html(n_items=0)
    with pytest.raises(ValueError, match='netflix'): rec.to_html(data='netflix')


# the page of ML-100K


def test_a_page_of_ml_100k_is_small_and_holds_nobodys_ratings(trained, films):
    assert len(films.encode()) < 500_000
    data = data_of(films)
    assert data.keys() == {
        *('titles', 'counts', 'means', 'levels', 'noun', 'ranks', 'model', 'map', 'synonyms', 'articles'),
        'notice',
    }
    assert data['titles'] == trained.items[1:] and data['levels'] == [1, 2, 3, 4, 5]
    # the mean of one rating is that rating
    assert all((mean is None) == (count < 5) for mean, count in zip(data['means'], data['counts']))
    # not one number for each user: factors of items, a prior, a map
    assert data['model']['items']['shape'] == [1664, 51] and data['model']['precision']['size'] == 51
    assert 'keep this page on your own machine' in data['notice'][-2] and 'doi.org' in data['notice'][-1]


def test_ease_takes_as_many_films_as_fit(trained, page):
    model = EASE(len(trained.users), len(trained.items), trained.rated.pairs)
    rec = Recommender(model, trained.classes, trained.rated)
    html = rec.to_html()
    assert 480_000 < len(html.encode()) < 500_000
    n = len(data_of(html)['titles'])
    assert n > 500 and f'the {n:,} most-rated of 1,664 films' in html
    page.open(html)
    rate(page, dict.fromkeys(favourites, 1))
    same_as_python(page, rec, favourites)


def test_five_films_by_keys(trained, films, page):
    page.open(films)
    ratings = {}

    def tab_to(condition):
        for _ in range(40):
            if page(f'(e => {condition})(document.activeElement)'): return
            page.key('Tab')
        raise AssertionError(condition)

    tab_to("e.type === 'radio' && document.getElementById('answer').contains(e)")
    for stars in (5, 2, 4, 1, 3):
        film = page("document.getElementById('asked').textContent")
        assert film not in ratings
        page.key(' ')
        for k in range(stars - 1):
            page.key('ArrowRight')
            # the list changes with every star, and the film stays until the visitor goes on
            assert listed(page)[0] == trained.recommend_new(ratings | {film: k + 2}).title.tolist()
        ratings[film] = stars
        page.key('Tab')
        assert page('document.activeElement.textContent') == 'Next film'
        page.key('Enter')
        assert page("document.getElementById('answer').contains(document.activeElement)")
    assert page('[...ratings].map(([k, v]) => [titles[k], v])') == [[*pair] for pair in ratings.items()]
    same_as_python(page, trained, ratings)
    # and a film that is searched for
    tab_to("e.id === 'search'")
    page.type('godfather')
    tab_to("e.type === 'radio' && document.getElementById('hits').contains(e)")
    page.key(' ')
    ratings['Godfather, The (1972)'] = 1
    same_as_python(page, trained, ratings)
    assert page.errors == []


def test_five_films_by_touch_on_a_phone(trained, films, page):
    page.resize(390, 844, phone=True)
    page.open(films)
    assert page('document.documentElement.scrollWidth') == 390
    small = page(
        "[...document.querySelectorAll('fieldset label, button')].filter(e => e.offsetWidth)"
        '.map(e => Math.min(e.offsetWidth, e.offsetHeight))'
    )
    assert min(small) >= 24
    ratings = {}
    for stars in (5, 2, 4, 1, 3):
        film = page("document.getElementById('asked').textContent")
        page.tap(f'#answer label:nth-of-type({stars})')
        page.wait(f"document.getElementById('asked').textContent !== {json.dumps(film)}")
        ratings[film] = stars
    same_as_python(page, trained, ratings)
    page.tap('#rated li button')
    ratings.pop(film)
    page.wait('ratings.size === 4')
    same_as_python(page, trained, ratings)
    assert page.errors == []


def test_why_the_pushes_make_up_the_prediction(trained, films, page):
    page.open(films)
    rate(page, favourites)
    told = page(
        'best().map(({item, value}) => ({...model.reasons(state, item), value, title: titles[item]}))'
    )
    prior, dot = trained._prior, trained._dot
    for row in told:
        assert abs(row['before'] + sum(p['push'] for p in row['pushes']) - row['value']) < 1e-6
        # before any star: what the prior says
        i = trained.items.index(row['title'])
        z = dot.items[i].double()@prior['mean'][:-1] + prior['mean'][-1] + dot.item_biases[i]
        assert abs(dot.rating(z).item() - row['before']) < 1e-3
    first = page("document.querySelector('#list .why').textContent")
    assert 'because of ' in first and re.search(r'\(5 stars\) \+0\.\d\d', first)


def test_the_film_asked_next_tells_most(trained, films, page):
    page.open(films)
    rate(page, favourites)
    rated = [trained.items.index(title) for title in favourites]
    rest = [i for i in range(1, len(trained.items)) if i not in rated]
    prior, dot = trained._prior, trained._dot
    X = torch.cat([dot.items.double(), torch.ones(len(dot.items), 1)], 1).numpy()
    bias = dot.item_biases.double().numpy()
    w = np.append(*trained.fold_in(favourites))
    share = 1/(1 + np.exp(-(X@w + bias)))
    slope2 = (5.5*share*(1 - share)) ** 2
    posterior = prior['precision'].numpy() + (X[rated].T*slope2[rated])@X[rated]/prior['noise']
    before = np.linalg.inv(posterior)
    counts = trained._popular()[0].numpy()

    # by how much the variance of all films falls, on average, once this film is rated
    def fall(i):
        after = np.linalg.inv(posterior + slope2[i]*np.outer(X[i], X[i])/prior['noise'])
        return np.einsum('ij,jk,ik->i', X[1:], before - after, X[1:]).mean()

    often = sorted(rest, key=lambda i: -counts[i])[:200]
    assert page('titles[question()]') == trained.items[max(often, key=lambda i: fall(i)*counts[i])]


def test_before_the_first_star_it_lists_what_most_people_rated(trained, films, page):
    page.open(films)
    names, values = listed(page)
    want = trained.recommend_new([])
    assert names == want.title.tolist() and np.allclose(values, want.predicted, atol=0.006)
    rate(page, favourites)
    page("document.getElementById('clear').click()")
    assert listed(page)[0] == names and page('state === null && map.found.size === 0')


# somebody's own list


letterboxd = """\ufeffDate,Name,Year,Letterboxd URI,Rating
2023-08-17,Star Wars,1977,https://boxd.it/2,5
2023-08-17,"Good, the Bad and the Ugly, The",1966,https://boxd.it/3,4.5
2023-08-17,Fargo,1996,https://boxd.it/4,4
2023-08-18,The Usual Suspects,1995,https://boxd.it/5,3.5
2023-08-18,No Such Film,2011,https://boxd.it/6,.5
2023-08-18,"Shanghai Triad",1995,https://boxd.it/7,2
"""
imdb = '''Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime,Year,Genres
tt1,9,2023-01-02,Heat,Heat,https://www.imdb.com,Movie,8.3,170,1995,Crime
tt2,10,2023-01-02,"Crouching ""Tiger""",x,https://www.imdb.com,Movie,7,100,2000,Action
tt3,3,2023-01-02,Schindler's List,x,https://www.imdb.com,Movie,9,195,1993,Drama
tt4,1,2023-01-02,Scream,x,https://www.imdb.com,Movie,7.4,111,1996,Horror
'''
goodreads = 'Title;My Rating;Year\nFargo;0;1996\nScream;2;1996\nCasablanca;4;1942\n'


@pytest.mark.parametrize(
    'name,text,encoding',
    [
        ('ratings.csv', letterboxd, 'utf-8'),
        ('ratings.csv', letterboxd, 'utf-16'),
        ('imdb.csv', imdb, 'cp1252'),
        ('books.csv', goodreads, 'utf-8'),
    ],
)
def test_a_dropped_list_is_read_as_the_command_reads_it(name, text, encoding, trained, films, page, tmp_path):
    from collab_course.tables import read_table
    data = text.replace('\ufeff', '' if encoding == 'utf-16' else '\ufeff').encode(encoding)
    file = tmp_path/name
    file.write_bytes(data)
    mine = trained.match(read_table(file))
    want = mine[mine.match.notna()]
    page.open(films)
    page(f"""(() => {{
      const bytes = Uint8Array.from(atob('{base64.b64encode(data).decode()}'), c => c.charCodeAt(0));
      const files = new DataTransfer();
      files.items.add(new File([bytes], '{name}'));
      dispatchEvent(new DragEvent('dragover', {{dataTransfer: files, bubbles: true, cancelable: true}}));
      dispatchEvent(new DragEvent('drop', {{dataTransfer: files, bubbles: true, cancelable: true}}));
    }})()""")
    page.wait("document.getElementById('imported').textContent")
    got = page('[...ratings].map(([k, v]) => [titles[k], v])')
    assert got == [[title, stars] for title, stars in zip(want.match, want.rescaled)]
    said = page("document.getElementById('imported').textContent")
    assert said.startswith(f'{len(want)} of {len(mine)} titles are known here')
    same_as_python(page, trained, dict(zip(want.match, want.rescaled)))
    assert len(page.asked) == 1 and page.errors == []


def test_a_list_that_cannot_be_read_says_why(films, page):
    page.open(films)
    why = """(() => { try { personalList(new TextEncoder().encode(%s)); }
                      catch (e) { return e.message; } })()"""
    for text, said in (
        ('a,b\n1,2\n', 'no column for the rating'),
        ('user,item,rating\n1,Fargo,5\n', 'a column of users'),
        ('year,rating\n1999,5\n', 'no column for the title'),
        ('title,rating\nFargo,\n', 'no row of the table has a rating'),
        ('title,rating\n', 'empty'),
        ('PK\x03\x04', 'zip'),
        ('a\x00b', 'no text'),
    ):
        assert said in page(why % json.dumps(text)), text


def test_titles_are_found_as_python_finds_them(trained, films, page, latest):
    index, written = TitleIndex(trained.items), latest.movies.title.tolist()
    written += [t.rsplit(' (', 1)[0] for t in written[:3000]] + [t.upper() for t in written[:3000]]
    page.open(films)
    found = page(f'{json.dumps(written)}.map(find).map(k => k === null ? null : titles[k])')
    assert found == [index.find(title) for title in written] and sum(f is not None for f in found) > 3000


# what the page is to those who do not see it, and to those who mean it ill


def test_a_screen_reader_is_told_everything(films, page):
    page.open(films)
    rate(page, favourites)
    page("$('search').value = 'star'; search(); $('table').open = true")
    page.wait("document.querySelectorAll('#table tbody tr').length === 1000")
    told = page.tree()
    named = 'radio', 'button', 'searchbox', 'combobox', 'img'
    assert not [role for role, name in told if role in named and not name]
    assert {('radio', '3 stars'), ('radio', '1 star'), ('heading', 'Your list')} <= {*told}
    assert ('group', 'your rating of Star Wars (1977)') in told
    assert [name for role, name in told if role == 'rowheader'][0].startswith(listed(page)[0][0])
    row = page("[...$('table').querySelectorAll('tr')].find(r => r.innerText.startsWith('Fargo')).innerText")
    assert row.split('\t')[0] == 'Fargo (1996)' and '5 stars' in row


strange = [
    '</script><script>document.title="broken"</script>',
    '<img src=x onerror=document.title="broken">',
    '"><svg onload=document.title="broken">',
    "a'b\"c & d ${document.title='broken'}",
    '@DATA@ @TITLE@ @page.js@ $& \\u003c',
    '\u2028line\u2029\x00\x1b[31m',
    '日本語 é \U0001f600',
    'javascript:document.title="broken"',
    '=HYPERLINK("x")',
    'x' * 400,
]


@pytest.mark.parametrize('make', [kinds['bias'], kinds['EASE']])
def test_strange_titles_are_only_text(make, page):
    rec = made(make, n_items=11)
    rec = Recommender(rec.model, dict(user=rec.users, title=['#na#', *strange]), rec.rated)
    page.resize(390, 844, phone=True)
    page.open(rec.to_html(title='<b>&amp;</b><script>document.title="broken"</script>'))
    heading = page('document.title')
    assert heading == '<b>&amp;</b><script>document.title="broken"</script>'
    assert page('titles') == strange
    assert page("document.querySelectorAll('img, svg, b b, main script').length") == 0
    for k in range(5): page(f'rate({k}, 1)')
    page("for (const t of ['script', 'img', '日']) { $('search').value = t; search(); }")
    page("document.getElementById('table').open = true; goOn({detail: 0})")
    assert page("document.getElementById('hits').innerText").startswith('日本語')
    assert page('document.title') == heading and page.errors == []
    assert page('document.documentElement.scrollWidth') == 390
    same_as_python(page, rec, dict.fromkeys(strange[:5], 1))


def test_no_connection_and_no_other_script(films, page):
    page.open(films)
    page("""(() => { const s = document.createElement('script'); s.textContent = 'document.title = "broken"';
        document.body.append(s); const i = document.createElement('img'); i.src = 'https://example.org/x.png';
        document.body.append(i);
        document.body.insertAdjacentHTML('beforeend', '<i onclick="document.title=1">x</i>');
        document.body.lastChild.click(); })()""")
    assert page("fetch('https://example.org').then(() => 'came', () => 'refused')") == 'refused'
    assert page('document.title') == 'Which film next?'
    assert len([e for e in page.errors if 'Content Security Policy' in e]) >= 3
    assert [url for url in page.asked.values() if not url.startswith('file:')] == []


def test_dark_and_light(films, page):
    page.open(films)
    colours = [page("getComputedStyle(document.body).backgroundColor")]
    page.dark()
    colours.append(page("getComputedStyle(document.body).backgroundColor"))
    assert colours == ['rgb(255, 255, 255)', 'rgb(22, 24, 27)']


# the command


def test_the_command(tmp_path, capsys):
    rec = made(kinds['bias'])
    rec.save(tmp_path/'mine')
    run = partial(main, ['page', str(tmp_path/'mine'), '--out', str(tmp_path/'page.html')])
    assert run() == 0
    said = capsys.readouterr().out
    assert 'see what their licence says' in said and (tmp_path/'page.html').stat().st_size < 100_000
    more = ['--data', 'ml-latest-small', '--title', 'Mine', '--items', '20', '--json']
    assert main(['page', str(tmp_path/'mine'), '--out', str(tmp_path/'page.html'), *more]) == 0
    told = json.loads(capsys.readouterr().out)
    html = (tmp_path/'page.html').read_text(encoding='utf-8')
    assert told['bytes'] == len(html.encode()) and told['notice'] == data_notice('ml-latest-small')
    assert '<h1>Mine</h1>' in html and len(data_of(html)['titles']) == 20
    assert data_of(html)['notice'][-2:] == told['notice'] and 'commercial' in html
    made(lambda u, i, pairs: Popularity(u, i, pairs)).save(tmp_path/'popular')
    assert main(['page', str(tmp_path/'popular'), '--out', str(tmp_path/'no.html')]) == 2
    assert 'there is no page for a Popularity' in capsys.readouterr().err
    assert not (tmp_path/'no.html').exists()


# the map, which shares its script


@pytest.fixture
def film_map():
    rng = np.random.default_rng(0)
    info = pd.DataFrame(
        dict(
            mean=rng.uniform(2, 5, 300),
            n_ratings=np.arange(300, 0, -1),
            genres=rng.choice(['Drama', 'Comedy', 'Drama|War', ''], 300),
        )
    )
    names = [f'A film of some length {k}' for k in range(300)]
    return FactorMap.from_factors(rng.normal(size=(300, 5)), names, info=info)


def test_labels_never_overlap(film_map, page):
    page.open(film_map.to_html(colour='genre'))
    count = "rows.filter((r, k) => map.labels.some(l => l.text === r.name)).length"
    clash = """map.labels.some((a, i) => map.labels.some((b, j) => i < j && a.left < b.right
               && b.left < a.right && a.top < b.bottom && b.top < a.bottom))"""
    for change in ('0', 'map.zoom(3)', 'map.pan(200, -80)', 'map.zoom(.2)', 'map.wholeMap()'):
        page(change)
        assert page(count) > 5 and not page(clash)
        edge = page('Math.max(...map.labels.map(l => l.right))')
        assert edge <= page('canvas.clientWidth')
    # the most rated come first
    assert page("map.labels.some(l => l.text === 'A film of some length 0')")


def test_legend_size_and_table(film_map, page):
    page.open(film_map.to_html(colour='genre'))
    sizes = page('rows.map(r => r.size)')
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 7 and sizes[-1] < 2.5
    page("document.getElementById('table').open = true")
    n_rows = "document.querySelectorAll('#table tbody tr').length"
    page.wait(f'{n_rows} === 300')
    page.click('#legend button')
    drama = page("rows.filter(r => kindOf(r) === data.legend[0][1] + '|' + data.legend[0][2]).length")
    assert 0 < drama < 300 and page(n_rows) == 300 - drama
    assert page("document.querySelector('#legend button').getAttribute('aria-pressed')") == 'false'
    # what is hidden is not found by the mouse
    assert page("rows.filter(r => map.hidden.has(kindOf(r))).every(r => map.nearest(...at(r), .01) !== r)")
    page.click('#legend button')
    assert page(n_rows) == 300
    page("search.value = 'length 29'; find()")
    assert page(n_rows) == page('found.size') == 11
    page.open(film_map.to_html(colour='mean'))
    assert page("document.querySelectorAll('#legend button').length") == 0


def test_pinch_tap_and_keys_move_the_map(film_map, page):
    page.resize(390, 844, phone=True)
    page.open(film_map.to_html())
    whole = page('map.view()')
    middle = page.middle('#map')
    x, y = middle['x'], middle['y']
    two = lambda gap: [dict(x=x - gap, y=y, id=0), dict(x=x + gap, y=y, id=1)]
    page.touch('touchStart', *two(40))
    for gap in (50, 60, 80): page.touch('touchMove', *two(gap))
    page.touch('touchEnd')
    assert abs(page('map.view()')['sx']/whole['sx'] - 2) < 0.2
    page.touch('touchStart', dict(x=x, y=y))
    for k in range(1, 5): page.touch('touchMove', dict(x=x + 15*k, y=y))
    page.touch('touchEnd')
    dragged = page('map.view()')
    page("document.querySelector('.zoom button:last-child').click()")
    assert page('map.view()') == whole and dragged['ox'] != whole['ox']
    place = page('(() => { const b = canvas.getBoundingClientRect(), [x, y] = at(rows[0]); '
                 'return {x: b.x + x, y: b.y + y}; })()')
    page.touch('touchStart', place)
    page.touch('touchEnd')
    page.wait("getComputedStyle(tip).display === 'block'")
    assert page('tip.textContent').startswith('A film of some length 0\n')
    page('canvas.focus()')
    page.key('+', '+')
    assert page('map.view()')['sx'] > whole['sx']
    page.key('Home')
    page.key('ArrowRight')
    assert page('map.view()')['ox'] == whole['ox'] - 40
    page.key('Escape')
    assert page('getComputedStyle(tip).display') == 'none' and page.errors == []
