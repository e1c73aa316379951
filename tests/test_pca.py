import base64, hashlib, json, re, shutil, subprocess, warnings
import fbpca, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from fastai.collab import Learner

from collab_course.errors import DataError
from collab_course.dot_product import DotProduct, DotProductBias
from collab_course.labels import DotProductLabels, side_labels
from collab_course.errors import NotInModel
from collab_course.errors import UnknownName
from collab_course.pca import Components, pca
from collab_course.maps import FactorMap, quadrant
from collab_course.progression import BiasOnly
import collab_course.pages  # noqa: F401  (it gives the map its page)
from test_interpretation import boxes_of


def spectrum(m, n, s, seed=0):
    "A centred (m, n) matrix with singular values `s`"
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(m, len(s)))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng.normal(size=(n, len(s))))
    return left*np.asarray(s, float)@right.T


@pytest.mark.parametrize('shape', [(300, 40), (40, 300), (60, 60)])
@pytest.mark.parametrize('kind', ['steep', 'flat', 'equal'])
def test_it_is_the_exact_decomposition(shape, kind):
    r = min(shape) - 1
    A = (
        spectrum(
            *shape,
            {'steep': 2.0 ** -np.arange(12), 'flat': np.linspace(1, 0.9, r), 'equal': np.ones(r)}[kind],
        )
        + 3
    )
    exact = np.linalg.svd(A - A.mean(axis=0), compute_uv=False)
    for k in (1, 2, r - 1, r, min(shape)):
        c = pca(A, k)
        assert np.allclose(c.explained_variance, exact[:k]**2/(len(A) - 1), rtol=1e-4, atol=1e-9*exact[0]**2)
        assert np.allclose(c.directions @ c.directions.T, np.eye(k), atol=1e-8) and c.coordinates.shape == (
            len(A),
            k,
        )
        assert np.allclose(c.coordinates, (A - A.mean(axis=0)) @ c.directions.T, atol=1e-8) and np.allclose(
            c.transform(A), c.coordinates, atol=1e-8
        )
        assert np.allclose(
            c.explained_variance_ratio, c.explained_variance * (len(A) - 1) / (exact**2).sum(), rtol=1e-6
        )
        assert (np.take_along_axis(c.directions, np.abs(c.directions).argmax(1)[:, None], 1) > 0).all()


@pytest.mark.parametrize('shape', [(2200, 2050), (2050, 2200)])
def test_where_fbpca_falls_short(shape):
    A = spectrum(*shape, np.linspace(1, .95, 400))
    np.random.seed(0)
    assert np.abs(fbpca.pca(A, 2, raw=True)[1]/[1, 1 - .05/399] - 1).max() > 1e-4
    assert np.allclose(pca(A, 2).explained_variance, np.array([1, 1 - .05/399])**2/(shape[0] - 1), rtol=1e-4)


def test_the_same_map_every_time_and_no_trace():
    A = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    np.random.seed(7); first = pca(A, 3)
    rng = torch.get_rng_state()
    np.random.seed(8); before = np.random.get_state()[1].copy()
    second = pca(A, 3)
    assert (
        np.array_equal(first.coordinates, second.coordinates)
        and np.array_equal(np.random.get_state()[1], before)
        and torch.equal(torch.get_rng_state(), rng)
    )
    assert np.allclose(pca(-A, 3).directions, first.directions) and isinstance(first, Components)
    assert np.array_equal(pca(A.numpy(), 3).coordinates, first.coordinates)
    A.requires_grad_()
    assert np.array_equal(pca(A, 3).coordinates, first.coordinates)


@pytest.mark.parametrize(
    'X, k, says',
    [
        (np.ones((4, 3)), 1, 'all rows are the same'),
        (np.full((4, 3), 1e8), 1, 'all rows are the same'),
        (np.ones(4), 1, 'a matrix of real numbers'),
        (np.ones((1, 3)), 1, 'at least 2 rows'),
        (np.array([[1.0, np.nan], [2, 3]]), 1, '1 NaN or infinite'),
        (np.array([['a', 'b'], ['c', 'd']]), 1, 'a matrix of real numbers'),
        (np.ones((4, 3)) * 1j, 1, 'a matrix of real numbers'),
        (np.eye(3), 0, 'from 1 to 3'),
        (np.eye(3), 4, 'from 1 to 3'),
        (np.eye(3), 1.5, 'from 1 to 3'),
        (np.eye(3), True, 'from 1 to 3'),
        (np.eye(3)[:0], 1, 'at least 2 rows'),
    ],
)
def test_pca_of_bad_input(X, k, says):
    with pytest.raises(ValueError, match=says): pca(X, k)


def test_transform_wants_as_many_columns():
    with pytest.raises(ValueError, match='3 columns are needed, not 2'):
        pca(np.eye(3), 2).transform(np.eye(2))


@pytest.fixture
def cross():
    "Points whose principal axes are the axes of the plane"
    pts = np.array([[4., 0], [-4, 0], [0, 2], [0, -2], [3, 1], [-3, -1], [3, -1], [-3, 1]])
    info = pd.DataFrame(
        dict(
            n_ratings=[9, 7, 6, 4, 5, 3, 2, 1],
            mean=3.5,
            genres=['Drama|War', 'Drama', 'Comedy', None, 'Drama', 'Comedy', '', 'War'],
            bias=np.linspace(-1, 1, 8),
        )
    )
    return FactorMap.from_factors(pts, list('abcdefgh'), k=2, info=info)


def test_quadrants():
    assert quadrant([2, -2, -2, 2, 0, 3, 0], [2, 2, -2, -2, 5, 0, 0]).tolist() == [
        'First',
        'Second',
        'Third',
        'Fourth',
        'Center',
        'Center',
        'Center',
    ]


def test_the_table(cross):
    f = cross.frame.set_index('name')
    assert (
        f.loc['e', 'distance'] == pytest.approx(10**0.5)
        and f.loc['a', 'pc1'] == pytest.approx(4)
        and cross.ratio.sum() == pytest.approx(1)
    )
    assert f.loc[['e', 'h', 'f', 'g'], 'quadrant'].tolist() == ['First', 'Second', 'Third', 'Fourth']
    swapped = cross.on(2, 1).frame.set_index('name')
    assert swapped.loc[['e', 'h', 'f', 'g'], 'quadrant'].tolist() == ['First', 'Fourth', 'Third', 'Second']
    assert sorted(cross.farthest(1).name) == list('efgh')
    assert set(cross.near_axes(.01).name) >= set('abcd') and not set(cross.near_axes(.01).name) & set('efgh')
    assert cross.ranks(2, 3).name.tolist() == ['b', 'c'] and cross.rows(['h', 'a']).name.tolist() == [
        'h',
        'a',
    ]
    assert cross.ends(1, 1).values.tolist() == [['a', 'b']]


def test_tolerance_is_a_share_of_the_spread(cross):
    "Scaling the factors changes nothing about what is near an axis"
    rng = np.random.default_rng(0).normal(size=(500, 4))
    names = range(500)
    near = [
        FactorMap.from_factors(rng * scale, names, k=2).near_axes(0.02).name.tolist()
        for scale in (1e-14, 1e-4, 1, 1e4)
    ]
    assert near[0] == near[1] == near[2] == near[3] and 5 < len(near[0]) < 40


def test_bad_questions(cross):
    for pair in ((1, 1), (0, 1), (1, 3), (1,), (1, 2.), (True, 2)):
        with pytest.raises(ValueError, match='two different numbers from 1 to 2'): cross.on(*pair)
    with pytest.raises(UnknownName, match="no name is called 'z'"): cross.rows(['z'])
    for c in (3, 0, 1., True):
        with pytest.raises(ValueError, match='from 1 to 2'): cross.ends(c)
    for n in (0, -1, 1.5):
        with pytest.raises(ValueError, match='whole number'): cross.ends(1, n)
        with pytest.raises(ValueError, match='whole number'): cross.farthest(n)
    with pytest.raises(ValueError, match='finite'): quadrant([np.nan], [1])
    with pytest.raises(DataError, match='pc1 are not'): FactorMap(cross.frame.assign(pc1=np.nan), cross.ratio)
    with pytest.raises(ValueError, match='at least 2 components'): FactorMap.from_factors(np.eye(3), 'abc', 1)
    for colour in ('genres', 'name', 'quadrant'):
        with pytest.raises(ValueError, match='there are genre, pc1'): cross.plot(colour=colour)
    with pytest.raises(ValueError, match='ranks go from 1'): cross.ranks(0, 5)
    with pytest.raises(ValueError, match="cannot colour by 'price'"): cross.plot(colour='price')
    with pytest.raises(ValueError, match='no row to draw'): cross.plot(cross.frame[:0])
    with pytest.raises(ValueError, match="cannot colour by 'price'"): cross.to_html(colour='price')
    with pytest.raises(DataError, match='8 rows of factors and 2 names'):
        FactorMap.from_factors(np.zeros((8, 2)), 'ab')
    with pytest.raises(DataError, match='2 names and 1 rows of info'):
        FactorMap.from_factors(np.eye(2), 'ab', 2, info=pd.DataFrame({'x': [1]}))
    plain = FactorMap.from_factors(np.random.default_rng(0).normal(size=(9, 3)), range(9))
    with pytest.raises(DataError, match='no column n_ratings'): plain.ranks(1, 2)
    with pytest.raises(ValueError, match='cannot colour'): plain.plot(colour='genre')


def test_from_learner(ml, dls):
    model = DotProductLabels(dls.n_users, dls.n_items, 6, labels=side_labels(dls, ml)[:1])
    learn = Learner(dls, model)
    m = FactorMap.from_learner(learn, table=ml.movies[['title', 'genres']])
    assert (
        len(m) == 1664
        and '#na#' not in set(m.frame.name)
        and {'mean', 'n_ratings', 'bias', 'genres'} <= set(m.frame)
    )
    assert m.frame.set_index('name').loc['Star Wars (1977)', 'n_ratings'] == 583
    top = FactorMap.from_learner(learn, most_rated=50, k=2)
    # its own components
    assert (
        len(top) == 50
        and top.frame.n_ratings.min() >= m.frame.n_ratings.nlargest(50).min()
        and abs(top.frame.pc1.mean()) < 1e-6
    )
    assert (
        len(FactorMap.from_learner(learn, which='user')) == 943
        and len(FactorMap.from_learner(learn, which='genre')) == 19
    )
    assert 'bias' not in FactorMap.from_learner(Learner(dls, DotProduct(dls.n_users, dls.n_items, 4))).frame
    with pytest.raises(NotInModel): FactorMap.from_learner(Learner(dls, BiasOnly(dls.n_users, dls.n_items)))
    with pytest.raises(DataError, match="no column 'title'"):
        FactorMap.from_learner(learn, table=ml.movies[['genres']])
    with pytest.raises(ValueError, match='from 1 to 6'): FactorMap.from_learner(learn, k=7)
    for most in (0, -5, 1.5):
        with pytest.raises(ValueError, match='most_rated must be'):
            FactorMap.from_learner(learn, most_rated=most)
    with pytest.raises(DataError, match='no title of the model is in the table'):
        FactorMap.from_learner(learn, table=pd.DataFrame(dict(title=['x'], genres=['y'])))
    # an index is the model's, also on a part of the map
    assert top.rows(dls.classes['title'].o2i[top.frame.name[3]]).name.item() == top.frame.name[3]
    assert m.rows([50]).name.item() == dls.classes['title'][50]


def apart(ax):
    boxes, frame, page = boxes_of(ax), ax.get_window_extent(), ax.figure.bbox
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert all(
        frame.x0 <= b.x0
        and b.x1 <= frame.x1
        and frame.y0 <= b.y0
        and b.y1 <= frame.y1
        and page.x0 <= b.x0
        and b.x1 <= page.x1
        for b in boxes
    )
    return len(boxes)


def test_labels_in_every_picture_are_apart(ml, dls):
    torch.manual_seed(0)
    model = DotProductBias(dls.n_users, dls.n_items, 5)
    m = FactorMap.from_learner(Learner(dls, model), table=ml.movies[['title', 'genres', 'year']])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)  # a label left out would warn
        for rows, colour, pair in (
            (m.farthest(5), None, None),
            (m.ranks(1, 50), 'bias', (1, 3)),
            (m.ranks(51, 100), 'genre', None),
            (m.rows(['Star Wars (1977)']), 'year', (2, 3)),
        ):
            ax = m.plot(rows, components=pair, colour=colour)
            assert apart(ax) == len(rows) == len(ax.texts)
            assert ax.figure.get_figwidth() <= 10 and all(t.get_fontsize() >= 8 for t in ax.texts)
            plt.close(ax.figure)
    near = m.near_axes(.01)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        ax = m.plot(near)
        assert apart(ax) >= .8*len(near)
        # more than there is room for: left out, and said
        ax = m.plot(m.ranks(1, 400))
        assert 50 < apart(ax) < 400 and any('labels found no free place' in str(w.message) for w in said)
    plt.close('all')
    with warnings.catch_warnings(record=True):
        fig, ax = plt.subplots(figsize=(9, 6))
        assert m.plot(m.ranks(1, 30), ax=ax, colour='bias') is ax and apart(ax) > 20
    assert m.plot().texts[:] == [] and len(m.plot(['Star Wars (1977)', 'Fargo (1996)']).texts) == 2
    plt.close('all')


def test_a_genre_has_one_colour_in_every_picture_and_the_unknown_is_grey(cross):
    grid = FactorMap.from_factors(
        np.random.default_rng(0).normal(size=(30, 3)),
        range(30),
        info=pd.DataFrame(
            dict(genres=['Drama'] * 15 + ['War'] * 10 + ['Comedy'] * 5, bias=[np.nan, *np.linspace(0, 1, 29)])
        ),
    )
    colour = lambda ax: {c.get_label(): tuple(c.get_facecolor()[0]) for c in ax.collections}
    whole, part = (
        colour(grid.plot(colour='genre')),
        colour(grid.plot(grid.frame.tail(8), colour='genre', labels=False)),
    )
    assert (
        set(whole) == {'Drama', 'War', 'Comedy'}
        and part.items() <= whole.items()
        and len(set(whole.values())) == 3
    )
    ax = grid.plot(colour='bias')
    ax.figure.canvas.draw()
    assert (
        tuple(ax.collections[0].get_facecolors()[0][:3]) == (0.6, 0.6, 0.6)
        and len(ax.collections[0].get_offsets()) == 30
    )
    rows = json.loads(re.search(r'const data = (.*);', grid.to_html(colour='bias'))[1])['rows']
    assert rows[0]['colour'] == '#999999' and rows[1]['colour'] != '#999999'
    plt.close('all')


def test_save_and_load(cross, tmp_path):
    cross.on(2, 1).save(tmp_path/'map.json')
    back = FactorMap.load(tmp_path/'map.json')
    assert (
        back.components == (2, 1)
        and np.array_equal(back.ratio, cross.ratio)
        and [p.name for p in tmp_path.iterdir()] == ['map.json']
    )
    pd.testing.assert_frame_equal(back.frame, cross.on(2, 1).frame, check_dtype=False, check_like=True)
    text = (tmp_path/'map.json').read_text()
    good = json.loads(text)
    for bad in (
        '',
        text[:-20],
        '[]',
        '3',
        json.dumps(good | {'format': 'x'}),
        json.dumps(good | {'components': [1, 1]}),
        json.dumps(good | {'table': {}}),
        json.dumps(good | {'ratio': [1, 2, 3]}),
        json.dumps(good | {'table': good['table'] | {'pc1': [1, 2]}}),
        json.dumps(good | {'table': good['table'] | {'pc1': ['x'] * 8}}),
        json.dumps(good | {'table': 3}),
    ):
        (tmp_path/'map.json').write_text(bad)
        with pytest.raises(DataError, match='is no map'): FactorMap.load(tmp_path/'map.json')
    with pytest.raises(FileNotFoundError): FactorMap.load(tmp_path/'none.json')
    (tmp_path/'keep.json').write_text('mine')
    broken = FactorMap.from_factors(np.eye(3), ['a', 'b', object()], 2)
    with pytest.raises(TypeError): broken.save(tmp_path/'keep.json')
    assert (tmp_path / 'keep.json').read_text() == 'mine' and sorted(p.name for p in tmp_path.iterdir()) == [
        'keep.json',
        'map.json',
    ]


# -- the page --

def test_the_page_is_self_contained_and_safe(cross):
    page = cross.to_html()
    assert not re.search(r'(src|href)\s*=|url\(|import\s|fetch\(|https?://', page)
    evil = [
        '</script><script>document.title="broken"</script>',
        '<img src=x onerror=alert(1)>',
        "a'b\"c & d",
        '\u2028line',
        '日本語 é',
    ]
    page = FactorMap.from_factors(np.random.default_rng(0).normal(size=(5, 3)), evil, 2).to_html()
    assert page.count('</script>') == 1 and '<img' not in page and '日本語' in page and '\u2028' not in page
    info = pd.DataFrame({'genres': evil, '<b>$5$</b>': range(5), 'mean': 3.})
    m = FactorMap.from_factors(np.random.default_rng(0).normal(size=(5, 3)), 'abcde', 2, info=info)
    for page in (m.to_html(colour='genre'), m.to_html(colour='<b>$5$</b>')):
        assert page.count('</script>') == 1 and '<img' not in page and '<b>' not in page
    pytest.importorskip('IPython')           # `show` is for notebooks
    shown = cross.show(300).data
    # quotes are escaped
    assert shown.count('<iframe') == 1 and '"Drama' not in shown.split('srcdoc="')[1].split('" style')[0]


chromium = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)


def ask_browser(page, script, tmp_path):
    "What Chromium makes of a page after `script` has run in it; the script's `say(…)` are returned"
    file = tmp_path/'page.html'
    script = (
        'const say = t => document.getElementById("said").append(t + "\\n"); '
        'onerror = e => say("error " + e); ' + script
    )
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # the page's policy allows no script but those it knows
    page = page.replace("script-src '", f"script-src 'sha256-{known}' '")
    file.write_text(
        page.replace('</body>', f'<pre id="said"></pre><script>{script}</script></body>'), encoding='utf-8'
    )
    run = subprocess.run(
        [
            chromium,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-dev-shm-usage',
            '--no-first-run',
            f'--user-data-dir={tmp_path}/profile',
            '--window-size=1000,700',
            '--virtual-time-budget=2000',
            '--dump-dom',
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'id="said"' in run.stdout, run.stderr[-2000:]
    import html
    return html.unescape(re.search(r'<pre id="said">(.*?)</pre>', run.stdout, re.S)[1]).splitlines()


@pytest.mark.skipif(chromium is None, reason='Chromium is not installed')
def test_searching_and_hovering_in_a_browser(ml, dls, tmp_path):
    torch.manual_seed(0)
    m = FactorMap.from_learner(
        Learner(dls, DotProductBias(dls.n_users, dls.n_items, 5)),
        table=ml.movies[['title', 'genres', 'year']],
    )
    script = '''
      const type = t => { search.value = t; search.dispatchEvent(new Event('input'));
        say(count.textContent); };
      const hover = r => {
        const box = canvas.getBoundingClientRect(), p = at(r), x = box.left + p[0], y = box.top + p[1];
        const under = document.elementFromPoint(x, y);
        say(under.id);
        under.dispatchEvent(new MouseEvent('mousemove', {clientX: x, clientY: y, bubbles: true}));
        say(getComputedStyle(tip).display + '|' + tip.innerText.replaceAll('\\n', '|')); };
      type('no such film'); type('STAR WARS');
      const lone = [...rows].sort((a, b) => (b.x**2 + b.y**2) - (a.x**2 + a.y**2))[0];
      say(lone.name); hover(lone);
      const film = rows[[...found][0]], edges = canvas.getBoundingClientRect();
      canvas.dispatchEvent(new WheelEvent('wheel', {
        deltaY: -1200, clientX: edges.left + at(film)[0], clientY: edges.top + at(film)[1]}));
      hover(film);
      canvas.dispatchEvent(new MouseEvent('mouseleave')); say(getComputedStyle(tip).display);
      const colours = new Set(); const px = ink.getImageData(0, 0, canvas.width, canvas.height).data;
      for (let k = 0; k < px.length; k += 4)
        if (px[k + 3]) colours.add(px[k] + ',' + px[k+1] + ',' + px[k+2]);
      say(colours.size > 3);
      type(''); say(document.getElementById('legend').innerText);'''
    none, some, lone, under, tip, under2, tip2, gone, drawn, empty, legend = ask_browser(
        m.to_html(colour='genre'), script, tmp_path
    )
    assert (
        none == '0 of 1664'
        and some == '1 of 1664'
        and under == under2 == 'map'
        and gone == 'none'
        and drawn == 'true'
        and empty == ''
    )
    assert legend.startswith('● Drama') and legend.endswith('· other')
    row = m.frame.set_index('name').loc[lone]
    assert (
        tip.startswith(f"block|{lone}|mean rating {row['mean']:.2f}|{row.n_ratings:,.0f} ratings")
        and lone == m.frame.sort_values('distance').name.iloc[-1]
    )
    assert (
        tip2.startswith('block|Star Wars (1977)|mean rating 4.36|583 ratings') and 'Action, Adventure' in tip2
    )


@pytest.mark.skipif(chromium is None, reason='Chromium is not installed')
def test_strange_names_in_a_browser(tmp_path):
    evil = [
        '</script><script>document.title="broken"</script>',
        '<img src=x onerror=say(1)>',
        "a'b\"c & d",
        '\u2028line',
        '日本語 é',
    ]
    said = ask_browser(
        FactorMap.from_factors(np.random.default_rng(0).normal(size=(5, 3)), evil, 2).to_html(),
        'rows.forEach(r => say(r.name)); say(document.title)',
        tmp_path,
    )
    assert (
        [s for s in ''.join(l + '\n' for l in said).split('\n') if s][:3] == evil[:3]
        and any('Map of 5' in s for s in said)
        and not any('broken' == s for s in said)
    )


@pytest.mark.cuda
def test_factors_on_the_gpu():
    X = torch.randn(100, 8, device='cuda')
    assert np.allclose(pca(X, 2).coordinates, pca(X.cpu(), 2).coordinates)
