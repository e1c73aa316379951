import warnings

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import CollabDataLoaders, Learner, collab_learner
from fastai.tabular.all import set_seed
import matplotlib.pyplot as plt

from collab_course.errors import DataError
from collab_course.dot_product import DotProduct, DotProductBias, DotProductBiasScratch
from collab_course.labels import DotProductLabels, LabelsNN, side_labels
from collab_course.svdpp import SVDpp, Ensemble
from collab_course.errors import NotInModel
from collab_course.interface import factors
from collab_course.testing import checkerboard
from collab_course.interpretation import CollabInterpretation, find_name, nearest, place_labels, short_title
from collab_course.errors import UnknownName
from collab_course.keras_style import KerasStyleBias, KerasStyleDotProduct, KerasStyleNN
from collab_course.loaders import RatingsDataLoaders
from collab_course.neural_net import nets
from collab_course.progression import BiasOnly
from collab_course.synthetic import synthetic_ratings


@pytest.fixture
def small():
    "Four users and five films with known factors"
    df = pd.DataFrame(
        dict(
            user=[1, 1, 2, 3, 4, 4, 4],
            title=['a', 'b', 'c', 'd', 'e', 'a', 'b'],
            rating=[5.0, 4, 3, 2, 1, 3, 5],
        )
    )
    dls = RatingsDataLoaders.from_df(df, valid_idx=[6], bs=4)
    model = DotProductBias(dls.n_users, dls.n_items, 2)
    with torch.no_grad():
        model.item_factors.weight.copy_(torch.tensor([[9., 9], [1, 0], [2, 0], [1, .5], [-1, 0], [0, 3]]))
        model.item_biases.weight.copy_(torch.tensor([9., .1, .3, -.2, .5, 0])[:, None])
    return Learner(dls, model)


def test_answers_by_hand(small):
    ci = CollabInterpretation.from_learner(small)
    top = ci.top_bias(2)
    assert top.title.tolist() == ['d', 'b'] and top.bias.tolist() == pytest.approx([.5, .3])
    assert ci.top_bias(2, largest=False).title.tolist() == ['c', 'e']
    a = ci.info().set_index('title').loc['a']
    assert a['mean'] == 4 and a.n_ratings == 2                         # training and validation rows
    assert ci.info().set_index('title').loc['b'].n_ratings == 2
    assert ci.similar('a', 2).title.tolist() == ['b', 'c'] and ci.similar(
        'a', 1
    ).cosine.item() == pytest.approx(1)
    assert ci.similar('a', 2, 'mse').title.tolist() == ['c', 'b'] and ci.similar(
        'a', 2, 'mse'
    ).mse.tolist() == pytest.approx([0.125, 0.5])
    assert ci.similar('a', 4, 'euclidean').euclidean.iloc[-1] == pytest.approx(10**.5)
    assert ci.similar('a').title.tolist()[-1] == 'd' and len(ci.similar('a', 100)) == 4
    assert ci.similar(1, 2).equals(ci.similar('a', 2))            # an index, where names are text
    assert set(ci.similar('d', min_ratings=2).title) == {'a', 'b'}
    assert set(ci.similar('d', most_rated=2).title) == {'a', 'b'} and len(ci.top_bias(min_ratings=2)) == 2
    table = ci.similarity()
    assert (
        table.index.tolist() == list('abcde')
        and np.allclose(table, table.T)
        and np.allclose(np.diag(table), 1)
    )
    assert table.loc['a', 'd'] == pytest.approx(-1) and table.loc['a', 'e'] == pytest.approx(0)
    assert ci.similarity(['e', 'a'], 'mse').to_numpy() == pytest.approx(np.array([[0, 5], [5, 0]]))
    assert ci.similar_to_all(1).neighbour.tolist()[:2] == ['b', 'a']


def test_row_0_is_in_no_answer(small):
    # row 0 has the highest bias and lies nearest to e
    ci = CollabInterpretation.from_learner(small)
    for which in ('item', 'user'):
        for frame in (
            ci.top_bias(99, which=which),
            ci.similar(2 if which == 'user' else 'a', 99, which=which),
            ci.similarity(which=which).reset_index(),
            ci.similar_to_all(1, which=which),
        ):
            assert not frame.astype(str).isin(['#na#']).any(axis=None)
    assert len(ci.similarity()) == 5
    with pytest.raises(UnknownName): ci.similar('#na#')
    with pytest.raises(UnknownName): ci.similar(0)


def test_names(small):
    ci = CollabInterpretation.from_learner(small)
    assert ci.index(3, 'user') == 3 and ci.index('c') == 3 and ci.index(np.int64(3)) == 3
    for bad, which, says in (
        ('x', 'item', 'no title is called'),
        (17, 'item', 'from 1 to 5'),
        (99, 'user', 'no user is 99'),
        ('1', 'user', r"'1' \(str\)"),
        ([1], 'item', 'names are text'),
        (True, 'item', 'no title'),
        (True, 'user', 'no user'),
    ):
        with pytest.raises(UnknownName, match=says): ci.index(bad, which)
    names = ['#na#', 'Star Wars (1977)', 'Stargate (1994)', 'Empire Strikes Back, The (1980)']
    assert find_name('Stargate (1994)', names) == 2
    with pytest.raises(UnknownName, match=r"did you mean 'Star Wars \(1977\)'"): find_name('star wars', names)
    with pytest.raises(UnknownName, match='Empire'): find_name('The Empire Strikes Back', names)
    with pytest.raises(UnknownName, match='there are 3, such as'): find_name('zzzzzz', names)
    with pytest.raises(ValueError, match="which must be 'user' or 'item'"): ci.names('film')


@pytest.mark.parametrize(
    'asked, best',
    [
        ('Alien', ['Alien (1979)', 'Aliens (1986)', 'Alien 3 (1992)']),
        ('Heat', ['Heat (1995)', 'Heathers (1989)']),
        ('ALIEN 3', ['Alien 3 (1992)']),
        ('  heat (1995)', ['Heat (1995)']),
        ('StarWars', ['Star Wars (1977)']),
        ('USER1', ['user1', 'user10', 'user11']),
        ('crossroads (2002)', ['Crossroads (2002)', 'Crossroads (1986)']),
        ('heatre', ['Theatre (1930)']),
        ('wars', ['Star Wars (1977)', 'A Film of Old Wars (1950)']),
        ('Haet', ['Heat (1995)']),
    ],
)
def test_the_likeliest_suggestion_comes_first(asked, best):
    titles = [
        'Alien: Resurrection (1997)',
        'Alien 3 (1992)',
        'Aliens (1986)',
        'Alien (1979)',
        'Theatre (1930)',
        'Mystery Science Theater 3000 (1996)',
        'Heathers (1989)',
        'Heat (1995)',
        'A Film of Old Wars (1950)',
        'Star Wars (1977)',
        'Crossroads (1986)',
        'Crossroads (2002)',
        *(f'user{k}' for k in range(15, 0, -1)),
    ]
    with pytest.raises(UnknownName) as e: find_name(asked, ['#na#', *sorted(titles)])
    assert str(e.value).split('did you mean ')[1].startswith(', '.join(map(repr, best)))


@pytest.mark.parametrize(
    'names', [[9, 32, 'guest', 'b'], ['b', 'guest', 9, 32], [9, 'guest', 2.5, pd.Timestamp('2020-01-01')]]
)
def test_names_of_several_kinds(names):
    vocab = ['#na#', *names]
    for name in names: assert find_name(name, vocab) == vocab.index(name)
    for name in (2, 1, 10, 'zz', '9', 1.5, None):                       # no index, for not all names are text
        with pytest.raises(UnknownName, match='no title is'): find_name(name, vocab)
    with pytest.raises(UnknownName, match=r"no title is '9' \(str\); did you mean 9\?"): find_name('9', vocab)
    with pytest.raises(UnknownName, match="did you mean 'guest'"): find_name('GUEST', vocab)


def test_ratings_may_be_given_and_may_be_missing(small, tmp_path):
    other = pd.DataFrame(dict(user=[1, 2, 9], title=['a', 'a', 'zzz'], rating=[1., 2, 3]))
    info = CollabInterpretation.from_learner(small, other).info().set_index('title')
    assert (
        info.loc['a', 'mean'] == 1.5 and info.loc['b', 'n_ratings'] == 0 and np.isnan(info.loc['b', 'mean'])
    )
    with pytest.raises(DataError, match="'rating'"):
        CollabInterpretation.from_learner(small, other[['user', 'title']])
    with pytest.raises(DataError, match='1 of 3 values not a finite number'):
        CollabInterpretation.from_learner(small, other.assign(rating=[1, np.nan, 2]))
    with pytest.raises(DataError, match='no user in the ratings is known'):
        CollabInterpretation.from_learner(small, other.astype({'user': str}))
    with pytest.raises(ValueError, match='all mean ratings are the same'):
        CollabInterpretation.from_learner(
            small, pd.DataFrame(dict(user=1, title=list('abc'), rating=3.0))
        ).plot_bias()
    bare = Learner(small.dls.new_empty(), small.model)
    ci = CollabInterpretation.from_learner(bare)
    assert ci.top_bias(1).title.item() == 'd' and ci.top_bias(1).n_ratings.item() == 0
    with pytest.raises(DataError, match='give `ratings`'): ci.top_bias(min_ratings=1)
    with pytest.raises(DataError, match='give `ratings`'): ci.plot_bias()


def test_bad_questions(small):
    ci = CollabInterpretation.from_learner(small)
    for n in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match='n must be a whole number'): ci.top_bias(n)
    with pytest.raises(ValueError, match="metric must be 'cosine'"): ci.similar('a', metric='l1')
    for most in (0, 1.5, True):
        with pytest.raises(ValueError, match='most_rated must be a whole number'):
            ci.top_bias(most_rated=most)
    assert ci.similarity('a').shape == ci.similarity(1).shape == ci.similarity(titles=['a']).shape == (1, 1)
    with pytest.raises(ValueError, match='at least 3 are needed'): ci.plot_bias(min_ratings=2)
    plain = Learner(small.dls, DotProduct(small.dls.n_users, small.dls.n_items, 2))
    with pytest.raises(NotInModel, match='DotProduct has no biases'):
        CollabInterpretation.from_learner(plain).top_bias()
    with pytest.raises(NotInModel, match='no factors'):
        CollabInterpretation.from_learner(Learner(small.dls, BiasOnly(5, 6))).similar('a')
    with pytest.raises(DataError, match='do not belong together'):
        CollabInterpretation.from_learner(Learner(small.dls, DotProductBias(5, 9, 2)))
    with torch.no_grad(): small.model.item_factors.weight[2, 1] = float('nan')
    with pytest.raises(DataError, match='diverged'): ci.similar('a')
    assert len(ci.top_bias()) == 5                                      # the biases are fine


def _models(dls):
    sized = (dls.n_users, dls.n_items)
    labels = [l for l in (getattr(dls, 'labels', None) or [])]
    return [
        DotProduct(*sized, 8),
        DotProductBias(*sized, 8),
        DotProductBiasScratch(*sized, 8),
        KerasStyleDotProduct(*sized, 8),
        KerasStyleBias(*sized, 8),
        KerasStyleNN(*sized, 8),
        nets[0].make(*sized, 8, (0, 5.5)),
        nets[1].make(*sized, 8, (0, 5.5)),
        DotProductLabels(*sized, 8, labels=labels),
        LabelsNN((sized[0], 8), (sized[1], 9), labels=labels),
        SVDpp(*sized, 8, pairs=dls.train_ds.x, labels=labels),
    ]


def test_every_model_answers_and_stays_as_it_was():
    dls = checkerboard()
    stock = collab_learner(CollabDataLoaders.from_df(dls.train_ds.items, bs=32), n_factors=8)
    for model in [*_models(dls), stock.model]:
        learn = stock if model is stock.model else Learner(dls, model)
        model.train(); next(model.children(), model).eval()
        before, modes, rng = (
            {k: v.clone() for k, v in model.state_dict().items()},
            [m.training for m in model.modules()],
            torch.get_rng_state(),
        )
        ci = CollabInterpretation.from_learner(learn)
        for which in ('item', 'user'):
            assert len(ci.similar(3, 5, which=which)) == 5 and ci.similarity([1, 2], 'mse', which).shape == (
                2,
                2,
            )
            assert len(ci.similar_to_all(3, which=which)) == 60
            try: assert ci.top_bias(3, which=which).bias.is_monotonic_decreasing
            except NotInModel: pass
        assert all(
            torch.equal(v, before[k]) and v.device == before[k].device for k, v in model.state_dict().items()
        ), type(model)
        assert [m.training for m in model.modules()] == modes and torch.equal(torch.get_rng_state(), rng)
    with pytest.raises(NotInModel, match='Ensemble has no factors'):
        CollabInterpretation.from_learner(Learner(dls, Ensemble([DotProduct(21, 21, 2)]))).similar(1)


def test_labels_are_asked_by_their_name(ml, dls):
    set_seed(0)
    model = DotProductLabels(dls.n_users, dls.n_items, 8, labels=side_labels(dls, ml))
    ci = CollabInterpretation.from_learner(Learner(dls, model))
    assert (
        ci.top_bias(3, which='genre').columns.tolist() == ['genre', 'bias']
        and len(ci.top_bias(99, which='occupation')) == 21
    )
    assert len(ci.similar('Horror', 99, which='genre')) == 18
    with pytest.raises(UnknownName, match="did you mean 'Horror'"): ci.similar('Horor', which='genre')
    with pytest.raises(ValueError, match="'genre'"): ci.names('genres')
    with pytest.raises(DataError, match='nothing is known'): ci.top_bias(which='genre', min_ratings=3)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean', 'mse'])
def test_nearest_is_exact_in_any_block(metric):
    from sklearn.metrics import pairwise_distances
    # far from the origin, where a formula that subtracts squares would fail
    vec = np.random.default_rng(0).normal(size=(300, 7)) + 50
    vec[7] = vec[8]
    full = pairwise_distances(vec, metric='cosine' if metric == 'cosine' else 'euclidean')
    np.fill_diagonal(full, np.inf)
    dist = np.sort(full)[:, :5]
    want = 1 - dist if metric == 'cosine' else dist**2/7 if metric == 'mse' else dist
    for dtype, tol in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        for block in (None, 1, 77):
            value, idx = nearest(torch.tensor(vec, dtype=dtype), 5, metric, block=block)
            assert np.allclose(value, want, atol=tol) and not (idx == torch.arange(300)[:, None]).any()
    # two dense clusters, far apart
    far = (
        np.random.default_rng(1).normal(size=(400, 6)) * 0.01
        + np.where(np.arange(400) < 200, 100, -100)[:, None]
    )
    full = pairwise_distances(far, metric='cosine' if metric == 'cosine' else 'euclidean')
    np.fill_diagonal(full, np.inf)
    if metric != 'cosine':
        value, idx = nearest(torch.tensor(far, dtype=torch.float32).double().float(), 3, metric)
        same = [len(set(a) & set(b)) for a, b in zip(idx.tolist(), full.argsort(axis=1)[:, :3].tolist())]
        assert sum(same) > .98*1200
    value, idx = nearest(vec, 2, metric, queries=[8, 3])
    assert idx[0, 0] == 7 and np.allclose(value, want[[8, 3], :2], atol=1e-9)


def test_nearest_of_zeros_and_bad_input():
    vec = torch.tensor([[0., 0], [1, 0], [2, 0]])
    value, idx = nearest(vec, 2)
    assert value.isfinite().all() and value[0].tolist() == [0, 0] and idx[1, 0] == 2
    assert nearest(vec, 1, queries=[])[0].shape == (0, 1)
    assert nearest(vec.int(), 1, 'mse')[1][:, 0].tolist() in ([1, 0, 1], [1, 2, 1])
    for bad, says in ((vec[0], 'must be'), (vec*float('nan'), 'NaN')):
        with pytest.raises(ValueError, match=says): nearest(bad, 1)
    for k in (0, 3, 1.5):
        with pytest.raises(ValueError, match='k must be'): nearest(vec, k)
    with pytest.raises(IndexError, match='from 0 to 2'): nearest(vec, 1, queries=[3])
    with pytest.raises(TypeError, match='indices of rows'): nearest(vec, 1, queries=[.5])
    assert nearest(vec.bfloat16(), 1)[1][1, 0] == 2


def test_a_whole_table_of_too_many_is_refused():
    ci = CollabInterpretation(
        DotProduct(2, 20_002, 1),
        {'user': ['#na#', 1], 'item': ['#na#', *range(20_001)]},
        {'user': 'user', 'item': 'item'},
    )
    with pytest.raises(ValueError, match='similar_to_all'): ci.similarity()
    assert len(ci.similar_to_all(1)) == 20_001


def boxes_of(ax, texts=None):
    ax.figure.canvas.draw()
    renderer = ax.figure.canvas.get_renderer()
    return [t.get_window_extent(renderer) for t in (ax.texts if texts is None else texts)]


def test_drawn_labels_do_not_overlap_and_stay_inside(ml, dls):
    rng = np.random.default_rng(0)
    # the last: more than there is room for
    for n in (5, 40, 150):
        fig, ax = plt.subplots(figsize=(8, 6))
        x, y = rng.normal(size=(2, n))
        ax.scatter(x, y)
        kept = place_labels(ax, x, y, [f'a rather long label {k}' for k in range(n)])
        boxes, frame = boxes_of(ax), ax.get_window_extent()
        assert len(kept) == len(ax.texts) and (len(kept) == n if n < 150 else len(kept) >= 20)
        assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
        assert all(
            frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes
        )
        plt.close(fig)
    learn = Learner(dls, DotProductBias(dls.n_users, dls.n_items, 4))
    fig, ax = plt.subplots()
    assert CollabInterpretation.from_learner(learn).plot_bias(min_ratings=50, ax=ax) is ax
    boxes = boxes_of(ax)
    assert boxes and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    plt.close(fig)


@pytest.mark.parametrize('colour', [None, 'bias', 'genre'])
def test_two_maps_in_one_figure_leave_each_other_room(colour):
    from collab_course.maps import FactorMap
    rng = np.random.default_rng(0)
    info = pd.DataFrame(dict(bias=rng.normal(size=12), genres=['Drama|War', 'Comedy', 'Horror', None]*3))
    m = FactorMap.from_factors(
        rng.normal(size=(12, 4)), [f'A film of a long name {k}' for k in range(12)], info=info
    )
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.5), layout='constrained')
    for ax, pair in zip(axes, ((1, 2), (1, 3))): m.plot(m.frame, components=pair, colour=colour, ax=ax)
    fig.canvas.draw()
    whole = [ax.get_tightbbox() for ax in fig.axes]
    assert not any(a.overlaps(b) for k, a in enumerate(whole) for b in whole[:k]) and all(
        fig.bbox.x0 - 1 <= b.x0 and b.x1 <= fig.bbox.x1 + 1 for b in whole
    )
    for ax in axes:
        boxes, frame = boxes_of(ax), ax.get_window_extent()
        assert (
            len(boxes) >= 10
            and not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
            and all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
        )
    plt.close(fig)


def test_short_titles():
    assert (
        short_title('Postman, The (1997)') == 'The Postman'
        and short_title('M (1931)') == 'M'
        and short_title('1984') == '1984'
    )
    assert len(short_title('x'*99)) == 30


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.cuda)])
def test_on_another_device(device):
    "A model on the device is asked and answers as its copy on the CPU does"
    made = synthetic_ratings(30, 20, 400).ratings
    def interpretation(device):
        dls = RatingsDataLoaders.from_df(made, seed=0, device=device)
        model = DotProductBias(dls.n_users, dls.n_items, 4).to(device)
        return CollabInterpretation.from_learner(Learner(dls, model))
    want, ci = interpretation('cpu'), interpretation(device)
    want.model.load_state_dict(ci.model.state_dict())
    assert ci.similar(3, 5).cosine.to_numpy() == pytest.approx(want.similar(3, 5).cosine.to_numpy(), abs=1e-5)
    assert ci.top_bias(5).bias.to_numpy() == pytest.approx(want.top_bias(5).bias.to_numpy())
    assert ci.plot_bias() is not None
    plt.close()
    from collab_course.maps import FactorMap
    assert len(FactorMap.from_learner(ci)) == 20
    assert nearest(factors(ci.model)[1:], 3)[0].device.type == device
    assert all(p.device.type == device for p in ci.model.parameters())


dollars = ['Joey Bada$$', 'Ba$$in', 'Ca$h & Ke$ha', 'A$AP Rocky', r'\$5 \frac{1$', '_hidden', '$x$ (2010)']


@pytest.mark.parametrize('colour', [None, 'genre', 'co$t$$ of a film'])
def test_a_dollar_in_a_name_is_a_dollar(colour):
    from collab_course.maps import FactorMap
    info = pd.DataFrame({'genres': (dollars*2)[1:8], 'co$t$$ of a film': range(7)})
    m = FactorMap.from_factors(np.random.default_rng(0).normal(size=(7, 4)), dollars, info=info)
    ax = m.plot(m.frame, colour=colour)
    ax.figure.canvas.draw()
    drawn = [t for t in ax.figure.findobj(plt.Text) if '$' in t.get_text()]
    assert all(t._preprocess_math(t.get_text()) == (t.get_text(), False) for t in drawn)
    assert {t.get_text() for t in ax.texts} == {short_title(name) for name in dollars}
    if colour == 'genre': assert {t.get_text() for t in ax.get_legend().get_texts()} >= set(dollars[1:5])
    if colour == 'co$t$$ of a film': assert ax.figure.axes[1].get_ylabel() == colour
    plt.close('all')


def test_dollars_beside_biases():
    n = len(dollars)
    ratings = pd.DataFrame(dict(user=[1, 2]*n, title=dollars*2, rating=[k % 5 + 1. for k in range(2*n)]))
    dls = RatingsDataLoaders.from_df(ratings, valid_idx=[], bs=4)
    ax = CollabInterpretation.from_learner(
        Learner(dls, DotProductBias(dls.n_users, dls.n_items, 2))
    ).plot_bias()
    ax.figure.canvas.draw()
    assert {t.get_text() for t in ax.texts} <= set(map(short_title, dollars)) and len(ax.texts) >= 4
    plt.close('all')


def test_a_script_that_the_font_lacks_is_said_once(tmp_path):
    from collab_course.maps import FactorMap
    names = ['卧虎藏龙', '기생충', 'ต้มยำกุ้ง', 'शोले', 'Amélie']
    info = pd.DataFrame(dict(genres=['恐怖', 'Drama', '喜剧', 'Drama', 'Drama']))
    m = FactorMap.from_factors(np.random.default_rng(0).normal(size=(5, 3)), names, info=info)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        ax = m.plot(m.frame, colour='genre')
        for kind in ('png', 'svg', 'pdf'): ax.figure.savefig(tmp_path/f'map.{kind}')
    said = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    assert len(said) == 1 and 'to_html' in said[0] and 'font.family' in said[0]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        m.plot(m.frame.tail(1)).figure.savefig(tmp_path/'map.png')      # é is in the font
    plt.close('all')
