"Maps: which side is which, what the axes are called, one set of colours, small multiples."
import json, re

import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from matplotlib.colors import to_hex

from collab_course.errors import DataError
from collab_course.maps import FactorMap
import collab_course.pages  # noqa: F401  (it gives the map its page)

genres = ['Drama', 'Drama|War', 'Comedy', 'Action|Drama', '', 'Comedy|Romance']*20
info = pd.DataFrame(
    dict(
        mean=np.linspace(2, 5, 120),
        n_ratings=np.arange(1, 121)[::-1] ** 2,
        bias=np.linspace(1, -1, 120),
        genres=genres,
    )
)


@pytest.fixture
def factors():
    return np.random.default_rng(0).normal(size=(120, 6)) + np.linspace(-2, 2, 120)[:, None] * [
        1,
        0,
        0,
        0,
        0,
        0,
    ]


def coordinates(m): return m.frame[['pc1', 'pc2', 'pc3']].to_numpy()


def rotation(seed): return np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]


@pytest.mark.parametrize(
    'columns', [['mean', 'n_ratings'], ['mean'], ['n_ratings'], ['bias'], ['mean', 'n_ratings', 'bias']]
)
def test_a_map_is_never_mirrored(factors, columns):
    "Any rotation and mirroring of the factors gives the same predictions, and has to give the same map"
    first = coordinates(FactorMap.from_factors(factors, range(120), info=info[columns]))
    for seed in range(6):
        again = coordinates(FactorMap.from_factors(factors@rotation(seed), range(120), info=info[columns]))
        assert np.allclose(again, first, atol=1e-8)


def test_the_popular_and_liked_are_on_the_positive_side(factors):
    z = lambda values: (values - values.mean())/values.std()
    for columns, standing in (
        (['mean'], info['mean']),
        (['n_ratings'], np.log1p(info.n_ratings)),
        (['bias'], info.bias),
        (['mean', 'n_ratings', 'bias'], z(info['mean']) + z(np.log1p(info.n_ratings))),
    ):
        m = FactorMap.from_factors(factors, range(120), info=info[columns])
        assert all(m.frame[f'pc{c}'].corr(standing) > 0 for c in (1, 2, 3))


def test_where_nothing_is_known_the_sign_is_that_of_pca(factors):
    from collab_course.pca import pca
    plain = pca(factors, 3).coordinates
    unknown = pd.DataFrame(dict(mean=np.full(120, np.nan), n_ratings=0))
    for some in (None, info[['genres']], unknown, pd.DataFrame(dict(mean=np.full(120, 3.3)))):
        assert np.array_equal(coordinates(FactorMap.from_factors(factors, range(120), info=some)), plain)
    by_bias = FactorMap.from_factors(factors, range(120), info=unknown.assign(bias=info.bias))
    assert all(by_bias.frame[f'pc{c}'].corr(info.bias) > 0 for c in (1, 2, 3))
    partly = info[['mean']].copy()
    partly.loc[::3, 'mean'] = np.nan
    assert all(
        FactorMap.from_factors(factors, range(120), info=partly).frame[f'pc{c}'].corr(partly['mean']) > 0
        for c in (1, 2, 3)
    )


def test_names_of_axes(factors, tmp_path):
    m = FactorMap.from_factors(factors, range(120), info=info).named({1: ('old', 'new'), 3: ('a $x$', 'b')})
    assert m._axis_label(1).startswith('old  ←  component 1 (') and m._axis_label(1).endswith(
        'of the variance)  →  new'
    )
    assert m._axis_label(2).startswith('component 2 (')
    again = m.named({1: ('cold', 'hot')}).on(1, 3)
    assert again.axis_names == {1: ('cold', 'hot'), 3: ('a $x$', 'b')} and m.axis_names[1] == ('old', 'new')
    ax = again.plot(colour='genre')
    assert ax.get_xlabel() == again._axis_label(1) and ax.get_ylabel() == again._axis_label(3)
    ax.figure.canvas.draw()  # `$` is no formula
    assert [
        *map(json.loads(re.search(r'const data = (.*);', again.to_html())[1]).get, ('xlabel', 'ylabel'))
    ] == again._axis_labels()
    again.save(tmp_path/'map.json')
    back = FactorMap.load(tmp_path/'map.json')
    assert back.axis_names == again.axis_names and back.genres == again.genres == m.genres
    old = {
        k: v
        for k, v in json.loads((tmp_path / 'map.json').read_text()).items()
        if k not in ('genres', 'axis_names')
    }
    (tmp_path/'map.json').write_text(json.dumps(old))
    assert (
        FactorMap.load(tmp_path / 'map.json').axis_names == {}
        and FactorMap.load(tmp_path / 'map.json').genres == m.genres
    )
    (tmp_path/'map.json').write_text(json.dumps(old | dict(axis_names={'9': ['a', 'b']})))
    with pytest.raises(DataError, match='is no map'): FactorMap.load(tmp_path/'map.json')
    for bad in ({4: ('a', 'b')}, {1: 'ab'}, {1: ('a',)}, {1: (1, 2)}):
        with pytest.raises(DataError, match='axis has two names|component to name'): m.named(bad)
    plt.close('all')


# the numbers that the page's script knows
shapes = 'o', 's', 'D', '^', 'v', 'P', '.'


def test_static_map_and_page_have_the_same_sides_colours_and_shapes(factors):
    m = FactorMap.from_factors(factors, range(120), info=info)
    data = json.loads(re.search(r'const data = (.*);', m.to_html(colour='genre'))[1])
    ax = m.plot(colour='genre')
    drawn = {}
    for dots in ax.collections:
        for x, y in dots.get_offsets():
            drawn[round(x, 6), round(y, 6)] = (dots.get_label(), to_hex(dots.get_facecolor()[0]))
    legend = {(colour, shape): name for name, colour, shape in data['legend']}
    for row in data['rows']:
        assert drawn[row['x'], row['y']] == (legend[row['colour'], row['shape']], row['colour'].lower())
    assert [name for name, *_ in data['legend']] == [*m.genres, 'other'] and len(drawn) == 120
    from collab_course.maps import _markers
    assert (*_markers, '.') == shapes
    numbers = json.loads(re.search(r'const data = (.*);', m.to_html(colour='bias'))[1])['rows']
    ax = m.plot(colour='bias')
    ax.figure.canvas.draw()
    assert [row['colour'] for row in numbers] == [
        to_hex(c) for c in ax.collections[0].get_facecolors()[:, :3]
    ]
    plt.close('all')


def test_maps_made_with_the_same_table_have_the_same_colours(ml, dls):
    import torch
    from fastai.collab import Learner
    from collab_course.dot_product import DotProductBias
    torch.manual_seed(0)
    learn, table = Learner(dls, DotProductBias(dls.n_users, dls.n_items, 5)), ml.movies[['title', 'genres']]
    for most in (50, 300, None):
        m = FactorMap.from_learner(learn, most_rated=most, table=table)
        assert (
            m.genres == ['Drama', 'Comedy', 'Action', 'Thriller', 'Romance', 'Adventure'] == m.on(1, 3).genres
        )


def test_a_part_of_a_map_stays_where_it_is(factors):
    m = FactorMap.from_factors(factors, range(120), info=info).named({2: ('a', 'b')}).on(2, 3)
    part = m.only(m.ranks(1, 9))
    assert (
        len(part) == 9
        and part.axis_names == m.axis_names
        and part.genres == m.genres
        and part.components == (2, 3)
    )
    both = part.frame.merge(m.frame, on='name')
    assert np.array_equal(both.pc1_x, both.pc1_y) and np.array_equal(both.distance_x, both.distance_y)
    assert m.only([3, 1]).frame.name.tolist() == [3, 1] and m.only([3, 1]).rows(1).name.item() == 1


def test_small_multiples(factors):
    m = FactorMap.from_factors(factors, range(120), info=info)
    axes = m.plot_genres()
    assert m.genres[:2] == ['Drama', 'Comedy'] and [ax.get_title() for ax in axes] == [
        'Drama (60)',
        'Comedy (40)',
        'War (20)',
        'Action (20)',
        'Romance (20)',
    ]
    whole = m.plot(colour='genre')
    colour = {dots.get_label(): tuple(dots.get_facecolor()[0][:3]) for dots in whole.collections}
    for ax, genre in zip(axes, m.genres):
        grey, dots = ax.collections
        here = m.frame.genres.str.split('|').map(lambda names: genre in names)
        assert (
            len(grey.get_offsets()) == 120
            and len(dots.get_offsets()) == here.sum()
            and tuple(dots.get_facecolor()[0][:3]) == colour[genre]
        )
        assert (
            np.allclose(ax.lines[0].get_xydata()[0], m.frame.loc[here, ['pc1', 'pc2']].mean())
            and ax.get_xlim() == axes[0].get_xlim()
        )
    assert len(m.plot_genres(['War'], components=(1, 3))) == 1 and plt.gcf().get_supxlabel() == m._axis_label(
        1
    )
    with pytest.raises(ValueError, match='Western'): m.plot_genres(['Western'])
    with pytest.raises(DataError, match='no column genres'):
        FactorMap.from_factors(factors, range(120)).plot_genres()
    plt.close('all')
