"Top lists, somebody new, saving and loading, ratings that come later, and the commands."
import copy as copying, hashlib, json, os, pickle, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from conftest import parity, people
from collab_course import recommendation, saving
from collab_course.cli import main
from collab_course.data import read_ratings
from collab_course.errors import DataError
from collab_course.synthetic import synthetic_ratings
from collab_course.bayes import BayesianMF
from collab_course.dot_product import *
from collab_course.labels import *
from collab_course.svdpp import *
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.errors import UnknownName
from collab_course.keras_style import *
from collab_course.spreadsheet import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.neural_net import CollabNN
from collab_course.progression import BiasOnly
from collab_course.training import recipes
from collab_course.errors import *
from collab_course.history import History
from collab_course.ranking import *
from collab_course.recommendation import *
from collab_course.saving import *
from collab_course.sharing import *
from collab_course.uncertainty import *

R = (.5, 5.5)
FORMULA = {
    'dot': lambda d: DotProduct(d.n_users, d.n_items, 4),
    'dot, sigmoid': lambda d: DotProduct(d.n_users, d.n_items, 4, R),
    'bias': lambda d: DotProductBias(d.n_users, d.n_items, 4, R),
    'bias, no range': lambda d: DotProductBias(d.n_users, d.n_items, 4, None),
    'scratch': lambda d: DotProductBiasScratch(d.n_users, d.n_items, 4, R),
    'biases alone': lambda d: BiasOnly(d.n_users, d.n_items, R),
    'fastai': lambda d: EmbeddingDotBias(4, d.n_users, d.n_items, R),
    'keras dot': lambda d: KerasStyleDotProduct(d.n_users, d.n_items, 4),
    'keras bias': lambda d: KerasStyleBias(d.n_users, d.n_items, 4),
    'labels': lambda d: DotProductLabels(d.n_users, d.n_items, 4, R, [parity, people]),
    'implicit': lambda d: SVDpp(d.n_users, d.n_items, 4, R, d.train_ds.x),
    'implicit, labels': lambda d: SVDpp(d.n_users, d.n_items, 4, R, d.train_ds.x, [parity, people]),
}
OTHERS = {
    'fastai net': lambda d: EmbeddingNN([(d.n_users, 6), (d.n_items, 6)], [20, 10], y_range=R),
    'net': lambda d: CollabNN((d.n_users, 6), (d.n_items, 7), R, 20),
    'keras net': lambda d: KerasStyleNN(d.n_users, d.n_items, 6, 10),
    'labels net': lambda d: LabelsNN((d.n_users, 6), (d.n_items, 7), R, 20, [parity, people]),
    'ensemble': lambda d: Ensemble(
        [
            DotProductBias(d.n_users, d.n_items, 4, R),
            SVDpp(d.n_users, d.n_items, 4, R, d.train_ds.x, [parity]),
        ]
    ),
}
MODELS = FORMULA | OTHERS


def trained(make, n_epoch=3, **kwargs):
    dls = checkerboard(**kwargs)
    set_seed(0)
    learn = Learner(dls, make(dls), loss_func=mse_flat)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, .03, wd=.1)
    return learn


@pytest.fixture(scope='module', params=MODELS)
def learn(request): return trained(MODELS[request.param])


def tiny(model=None, ids=('a', 'b', 'c')):
    "A recommender whose files are small"
    torch.manual_seed(0)
    n = len(ids) + 1
    model = model or DotProductBias(n, 4, 2, R)
    x = torch.tensor([[1, 1], [1, 2], [2, 2], [3, 3], [3, 1]])
    return Recommender(
        model,
        {'user': ['#na#', *ids], 'title': ['#na#', 'x', 'y', 'z']},
        History(x, n, 4, torch.tensor([1.0, 5, 3, 4, 2])),
    )


# Known users

def test_top_lists_against_a_loop(learn):
    rec, model = Recommender.from_learner(learn), learn.model
    full = score(model, torch.arange(21)[:, None], torch.arange(21))
    seen = {tuple(p) for ds in (learn.dls.train_ds, learn.dls.valid_ds) for p in ds.x.tolist()}
    some = [1, 7, 20]
    for exclude in (True, False):
        got = rec.recommend(some, 4, exclude_seen=exclude)
        for u in some:
            cand = [i for i in range(1, 21) if not exclude or (u, i) not in seen]
            want = sorted(cand, key=lambda i: -full[u, i].item())[:4]
            mine = got[got.user == u]
            assert len(mine) == len(want) and np.allclose(mine.predicted, full[u, want], atol=1e-4)
            assert np.allclose(full[u, mine['item'].tolist()], full[u, want], atol=1e-4)
    assert rec.recommend(1, 4, exclude_seen=False)['item'].tolist() == got[got.user == 1]['item'].tolist()
    assert np.allclose(rec.predict([(7, 11), (20, 1)]), full[[7, 20], [11, 1]])
    # no #na#, no more than there are
    assert len(rec.recommend(None, 30, exclude_seen=False)) == 400


def test_from_learner_leaves_the_model_alone(learn):
    modes, state = (
        [m.training for m in learn.model.modules()],
        {k: v.clone() for k, v in learn.model.state_dict().items()},
    )
    learn.model.train()
    rng = torch.get_rng_state()
    rec = Recommender.from_learner(learn)
    rec.recommend(None, 3, exclude_seen=False)
    assert all(m.training for m in learn.model.modules()) and all(
        p.requires_grad for p in learn.model.parameters()
    )
    assert all(torch.equal(v, state[k]) for k, v in learn.model.state_dict().items()) and torch.equal(
        rng, torch.get_rng_state()
    )
    before = rec.predict([(1, 1)])
    with torch.no_grad():
        for p in learn.model.parameters(): p.add_(1)
    # a snapshot
    assert (rec.predict([(1, 1)]) == before).all()
    learn.model.load_state_dict(state)
    for m, t in zip(learn.model.modules(), modes): m.training = t


def test_memory_is_a_block():
    rec = tiny()
    sizes_seen = []
    whole = list(rec.recommend_blocks(n=2, exclude_seen=False))
    for block in (1, 3, 5, 6, 100):
        parts = list(rec.recommend_blocks(n=2, exclude_seen=False, block=block))
        assert max(len(u)*3 for u, *_ in parts) <= max(block, 3)
        sizes_seen.append(len(parts))
        for k in range(3):
            assert torch.equal(torch.cat([p[k] for p in parts]), torch.cat([p[k] for p in whole]))
    assert sizes_seen == [3, 3, 3, 2, 1]


def test_seen_rows():
    learn = trained(MODELS['bias'])
    full, train = Recommender.from_learner(learn), Recommender.from_learner(learn, seen='train')
    # the board is rated wholly
    assert full.recommend(1).empty and full.recommend(None).empty
    left = {tuple(p) for p in learn.dls.valid_ds.x.tolist()}
    assert {tuple(r) for r in train.recommend(None, 20)[['user', 'item']].to_numpy().tolist()} == left
    assert full.rated.trained.sum() == len(learn.dls.train_ds) and len(full.rated) == 400
    with pytest.raises(ValueError, match="'all' or 'train'"): Recommender.from_learner(learn, seen='valid')


def test_exported_learner(tmp_path):
    learn = trained(MODELS['bias']); learn.path = tmp_path
    learn.export('l.pkl')
    again = load_learner(tmp_path/'l.pkl')
    rec = Recommender.from_learner(again)
    assert rec.rated is None and 'ratings unknown' in repr(rec)
    with pytest.raises(DataError, match='give `ratings` to from_learner, or say exclude_seen=False'):
        rec.recommend(1)
    for ask in (
        lambda: rec.recommend_new({}),
        lambda: rec.recommend_new({1: 5}),
        lambda: rec.update(pd.DataFrame()),
    ):
        with pytest.raises(DataError, match='give `ratings` to from_learner'): ask()
    assert len(rec.recommend(1, 3, exclude_seen=False)) == 3 and rec.similar(1, 2)['mean'].isna().all()
    table = pd.DataFrame(dict(user=[1, 1, 99], item=[2, 4, 2], rating=[1, 5, 3]))
    with pytest.warns(UserWarning, match='1 of 3 rows are of users or items that the model does not know'):
        rec = Recommender.from_learner(again, table)
    assert not {2, 4} & set(rec.recommend(1, 20)['item']) and len(rec.recommend(1, 20)) == 18
    with pytest.raises(DataError, match="the table of ratings has no column 'item'"):
        Recommender.from_learner(again, table.drop(columns='item'))
    rec.save(tmp_path / 'r')
    assert Recommender.load(tmp_path / 'r').recommend(1, 20).equals(rec.recommend(1, 20))


def test_fastai_loaders():
    df = pd.DataFrame(
        [(f'u{u}', f'i{i}', float(1 + (u + i) % 5)) for u in range(9) for i in range(8) if (u * i) % 3],
        columns=['user', 'title', 'rating'],
    )
    set_seed(0)
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=0, bs=8), n_factors=3, y_range=(0, 5.5))
    rec = Recommender.from_learner(learn)
    assert (
        len(rec.rated) == len(df)
        and rec.rating_range == (1, 5)
        and not set(rec.recommend('u1', 20).title) & set(df[df.user == 'u1'].title)
    )
    assert len(rec.recommend_new({'i1': 5}, 3)) == 3


def test_integer_ids_of_fastai(tmp_path):
    "fastai keeps the vocabulary of small integers as NumPy's int8"
    df = pd.DataFrame(
        [(u, i, float(1 + (u + i) % 5)) for u in range(1, 10) for i in range(1, 9) if (u + i) % 3],
        columns=['user', 'title', 'rating'],
    )
    set_seed(0)
    rec = Recommender.from_learner(
        collab_learner(CollabDataLoaders.from_df(df, seed=0, bs=8), n_factors=3, y_range=(0, 5.5))
    )
    assert {type(n) for v in rec.classes.values() for n in v[1:]} == {int}
    rec.save(tmp_path/'r')
    assert (
        Recommender.load(tmp_path / 'r').recommend(None, 9).equals(rec.recommend(None, 9))
        and not rec.recommend(None, 9).empty
    )
    more = rec.update(pd.DataFrame(dict(user=[99], title=[1], rating=[5])))
    assert more.users[-1] == 99 and 1 not in set(more.recommend(99, 20).title)


def test_no_ratings_and_ratings_that_are_none(tmp_path):
    empty = Recommender(
        DotProductBias(4, 4, 2, R),
        tiny().classes,
        History(torch.zeros(0, 2, dtype=torch.long), 4, 4, torch.zeros(0)),
    )
    assert empty.rated is None and empty.rating_range == (None, None)
    with pytest.raises(DataError, match='nothing is popular'): empty.recommend_new({})
    empty.save(tmp_path / 'r')
    assert (
        Recommender.load(tmp_path / 'r')
        .recommend('a', 3, exclude_seen=False)
        .equals(empty.recommend('a', 3, exclude_seen=False))
    )
    with pytest.raises(DataError, match='the ratings hold NaN'):
        Recommender(
            DotProductBias(4, 4, 2, R),
            tiny().classes,
            History(torch.tensor([[1, 1]]), 4, 4, torch.tensor([torch.nan])),
        )


@pytest.mark.parametrize('name', ['predicted', 'cosine', 'euclidean', 'mse', 'mean', 'n_ratings', 'rank'])
def test_columns_called_as_one_of_a_result(name, tmp_path):
    for classes in (
        {name: ['#na#', 1, 2, 3], 'title': ['#na#', 'x', 'y', 'z']},
        {'user': ['#na#', 1, 2, 3], name: ['#na#', 'x', 'y', 'z']},
    ):
        with pytest.raises(DataError, match=f"a column cannot be called '{name}'"):
            Recommender(DotProductBias(4, 4, 2), classes)
    tiny().save(tmp_path/'r'); resum(tmp_path/'r', columns=dict(user='user', item=name, rating='rating'))
    with pytest.raises(BadFolder, match='a column cannot be called'): Recommender.load(tmp_path/'r')


@pytest.mark.parametrize('what, most', [('formula', 150), ('net', 400)])
def test_peak_memory_in_a_fresh_process(what, most):
    "The whole table would be 800 MB; the activations of all pairs of the net at once 2.4 GB"
    pytest.importorskip('resource')
    code = f"""
import resource, sys, torch
from collab_course.dot_product import DotProductBias
from collab_course.neural_net import CollabNN
from collab_course.recommendation import *
from collab_course.history import History
from collab_course.saving import Recommender
net = {what == 'net'}
u, i = (241, 10_001) if net else (20_001, 10_001)
pairs = torch.stack([torch.randint(1, n, (10_000,)) for n in (u, i)], dim=1)
model = CollabNN((u, 60), (i, 60)) if net else DotProductBias(u, i, 20)
classes = dict(user=['#na#', *range(1, u)], title=['#na#', *range(1, i)])
rec = Recommender(model, classes, History(pairs, u, i, torch.ones(10_000)))
def peak():
    "MB; on Linux ru_maxrss has what the parent process had, and VmHWM is this process's own"
    try: return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/2**10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**(20 if sys.platform == 'darwin' else 10)
before = peak()
print(sum(len(users) for users, *_ in rec.recommend_blocks(n=10, block=2**22)), peak() - before)
"""
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    done, more = map(float, run.stdout.split())
    assert done == (240 if what == 'net' else 20_000) and 1 < more < most, more


def test_choosing_and_asking_wrongly():
    rec = tiny()
    assert (
        set(rec.recommend('a', 5, exclude_seen=False, items=['y', 'z']).title) == {'y', 'z'}
        and rec.recommend('a', 5, items=['x']).empty
    )
    assert rec.recommend('a', items=[]).empty and list(rec.recommend(['a', 'b'], 1).columns) == [
        'user',
        'title',
        'predicted',
    ]
    assert (
        rec.recommend(pd.Series(['a', 'b']), 1, exclude_seen=False).user.tolist() == ['a', 'b']
        and rec.recommend([], 3).empty
    )
    assert rec.predict(pd.DataFrame(dict(title=['x'], user=['a']))).shape == (1,) and rec.predict(
        []
    ).shape == (0,)
    for ask in (
        lambda: rec.recommend('zz'),
        lambda: rec.recommend('#na#'),
        lambda: rec.recommend(1),
        lambda: rec.recommend('a', items=['w']),
        lambda: rec.predict([('a', 'w')]),
        lambda: rec.similar('w'),
        lambda: rec.recommend_new({'w': 5}),
        lambda: rec.recommend(['a', ['b']]),
    ):
        with pytest.raises(UnknownName): ask()
    assert rec.predict(('a', 'x')).shape == (1,) and rec.predict((('a', 'x'), ('b', 'y'))).shape == (2,)
    for pairs in ([('a', 'x', 3)], [('a',)], ['ax'], ['a', 'x'], [5]):
        with pytest.raises(DataError, match=r'pairs are \(user, title\), not'): rec.predict(pairs)
    for n in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match='n must be'): rec.recommend('a', n)
        with pytest.raises(ValueError, match='n must be'): rec.recommend_new({}, n)
    with pytest.raises(DataError, match="the table of pairs has no column 'title'"):
        rec.predict(pd.DataFrame(dict(user=['a'])))
    for users, items in (([0], None), ([9], None), (None, [0]), (None, [4])):
        with pytest.raises(IndexError): list(rec.recommend_blocks(users, 1, items=items))


def test_what_does_not_belong_together():
    with pytest.raises(DataError, match='4 users and the vocabulary 3'):
        Recommender(DotProductBias(4, 4, 2), {'user': ['#na#', 1, 2], 'item': ['#na#', 1, 2, 3]})
    model = DotProductBias(3, 3, 2); model.user_factors.weight.data[1, 0] = torch.nan
    with pytest.raises(DataError, match='diverged'):
        Recommender(model, {'user': ['#na#', 1, 2], 'item': ['#na#', 1, 2]})


def test_a_model_that_says_it_is_a_formula_and_is_not():
    class Wrong(DotProductBias):
        def forward(self, x): return 6 - super().forward(x)
    rec = tiny(Wrong(4, 4, 2, R))
    full = score(rec.model, torch.arange(4)[:, None], torch.arange(4))
    assert np.allclose(
        rec.recommend('b', 3, exclude_seen=False).predicted, full[2, 1:].sort(descending=True).values
    )
    with pytest.raises(NotInModel): rec.recommend_new({'x': 5})


def test_similar(learn):
    rec = Recommender.from_learner(learn)
    try: f = factors(learn.model)
    except NotInModel:
        with pytest.raises(NotInModel): rec.similar(3)
        return
    got = rec.similar(3, 5)
    cos = F.cosine_similarity(f[3:4], f[1:]); cos[2] = -2
    assert (
        np.allclose(got.cosine, cos.sort(descending=True).values[:5], atol=1e-5)
        and 3 not in set(got['item'])
        and (got.n_ratings == 20).all()
    )
    assert len(rec.similar(3, 99)) == 19 and rec.similar(3, 2, metric='mse').mse.is_monotonic_increasing
    with pytest.raises(DataError, match='no other item has 21 ratings'): rec.similar(3, min_ratings=21)


def test_similar_by_weights(tmp_path, capsys):
    "Odd and even: EASE has no factors, and what speaks for an item is of its own kind"
    everything = [(u, i) for u in range(1, 21) for i in range(1, 13)]
    pairs = torch.tensor([(u, i) for u, i in everything if (u + i) % 2 == 0 and (u*i) % 5])
    ratings = History(pairs, 21, 13, torch.ones(len(pairs)))
    classes = dict(user=['#na#', *range(20)], item=['#na#', *(f'film {i}' for i in range(1, 13))])
    rec = Recommender(EASE(21, 13, pairs, l2=1.), classes, ratings)
    got = rec.similar('film 3', 5)
    assert list(got) == ['item', 'weight', 'mean', 'n_ratings'] and got.weight.is_monotonic_decreasing
    assert {int(name.split()[1]) % 2 for name in got['item'][:4]} == {1}
    assert 'film 3' not in got['item'].tolist()
    best = rec.model.weights[1:, 3].topk(5)
    assert got.weight.tolist() == best.values.tolist()
    # what one item adds to the score of another
    assert rec.predict_new([got['item'][0]], ['film 3'])[0] == got.weight[0]
    most = int(rec.rated.counts().max())
    assert (rec.similar('film 3', 12, min_ratings=most).n_ratings == most).all()
    with pytest.raises(NotInModel, match="EASE has no factors, so there is no 'cosine': leave"):
        rec.similar('film 3', metric='cosine')
    with pytest.raises(UnknownName): rec.similar('film 33')
    with pytest.raises(DataError, match='no other item has 99 ratings'): rec.similar('film 3', min_ratings=99)
    rec.save(tmp_path/'r')
    shown = json.loads(out_of(capsys, 'similar', tmp_path/'r', 'film 3', '-n', 2, '--json'))['similar']
    assert [row['item'] for row in shown] == got['item'][:2].tolist() and shown[0]['weight'] > 0
    assert out_of(capsys, 'similar', tmp_path/'r', 'film 3', '-n', 2).count('\n') == 2
    popular = Recommender(Popularity(21, 13, pairs), classes, ratings)
    with pytest.raises(NotInModel, match='Popularity has no factors, and no weights .*: take EASE'):
        popular.similar('film 3')


# Somebody new

@pytest.mark.parametrize('name', FORMULA)
def test_like_an_old_user(name):
    """Somebody who rates like an even user must get like scores; one who rates like an odd user, the other
    ones"""
    learn = trained(FORMULA[name], 40)
    rec = Recommender.from_learner(learn)
    even = {i: 5 if i % 2 == 0 else 1 for i in range(1, 13)}
    scores = pd.Series(rec.predict_new(even), range(1, 21))
    if name == 'biases alone':
        assert scores.std() < 1; return
    assert all((scores[i] > 3) == (i % 2 == 0) for i in range(13, 21)) and all(
        (s < 3) == (i % 2 == 0)
        for i, s in zip(range(1, 21), rec.predict_new({i: 6 - r for i, r in even.items()}))
    )
    top = rec.recommend_new(even, 4)
    assert set(top['item']) == {14, 16, 18, 20} and top.predicted.is_monotonic_decreasing
    old = score(learn.model, 2, torch.arange(1, 21)).numpy()
    assert np.corrcoef(old, rec.predict_new({i: 5 if i % 2 == 0 else 1 for i in range(1, 21)}))[0, 1] > .95


@pytest.mark.parametrize('name', OTHERS)
def test_the_others_say_that_they_cannot(name):
    rec = Recommender.from_learner(trained(OTHERS[name], 1))
    with pytest.raises(NotInModel, match='not made of biases and a dot product'): rec.recommend_new({3: 5})
    with pytest.raises(NotInModel): rec.fold_in({3: 5})
    # the popular need no model
    assert len(rec.recommend_new({}, 3)) == 3


@pytest.mark.parametrize(
    'name', ['dot', 'dot, sigmoid', 'bias', 'keras bias', 'implicit, labels', 'biases alone']
)
def test_odd_ratings(name):
    rec = Recommender.from_learner(trained(FORMULA[name], 20))
    average = rec.predict_new([])
    one = rec.predict_new({4: 5})
    assert (
        np.isfinite(one).all()
        and one[3] >= average[3] - 1e-4
        and rec.predict_new({4: 1})[3] <= average[3] + 1e-4
    )
    for r in (1, 5):
        same = rec.predict_new({i: r for i in range(1, 21)})
        assert np.isfinite(same).all() and abs(same.mean() - r) < abs(average.mean() - r)
    both = rec.predict_new([(4, 1), (4, 5)])  # contradictory: about what saying nothing of it gives
    assert (
        min(rec.predict_new({4: 1})[3], rec.predict_new({4: 5})[3]) - 1e-3
        <= both[3]
        <= max(rec.predict_new({4: 1})[3], rec.predict_new({4: 5})[3]) + 1e-3
    )
    assert 4 not in set(rec.recommend_new([(4, 1), (4, 5)], 20)['item']) and 4 in set(
        rec.recommend_new({4: 5}, 20, exclude_seen=False)['item']
    )
    assert set(rec.recommend_new({4: 5}, 5, items=[4, 7, 9])['item']) == {7, 9}


def test_nothing_gives_the_popular():
    got = tiny().recommend_new({}, 9)
    assert got.title.tolist() == ['x', 'y', 'z'] and got.predicted.tolist() == [1.5, 4, 4]
    assert tiny().recommend_new({}, 9, items=['z', 'x']).title.tolist() == ['x', 'z']


@pytest.mark.parametrize(
    'ratings, words',
    [
        ({'x': float('nan')}, 'not a finite number'),
        ({'x': 'five'}, 'not a finite number'),
        ({'x': 9}, 'ratings here go from 1 to 5'),
        ({'x': True}, 'not a finite'),
        (['x'], 'pairs'),
        ([('x', 5, 3)], 'pairs'),
        ({'x': [5]}, 'not a finite'),
        ({'x': 3 + 1j}, 'not a finite'),
        ({'x': b'5'}, 'not a finite'),
        ({'x': np.bool_(True)}, 'not a finite'),
        ({'x': np.nan}, 'not a finite'),
        ({'x': 10**400}, 'not a finite'),
        ({'x': -np.inf}, 'not a finite'),
    ],
)
def test_unusable_new_ratings(ratings, words):
    with pytest.raises(DataError, match=words): tiny().recommend_new(ratings)


def test_a_table_of_ones_own():
    "Other spellings, another scale, a film that is not known"
    x = torch.tensor([[1, 1], [1, 2], [2, 2], [3, 3], [3, 1]])
    titles = ['#na#', 'Matrix, The (1999)', 'Heat (1995)', 'Alien (1979)']
    torch.manual_seed(0)
    rec = Recommender(
        DotProductBias(4, 4, 2, R),
        {'user': ['#na#', 'a', 'b', 'c'], 'title': titles},
        History(x, 4, 4, torch.tensor([1.0, 5, 3, 4, 2])),
    )
    mine = pd.DataFrame(dict(title=['The Matrix (1999)', 'heat', 'Cats (2019)'], rating=[10., 1, 4]))
    matched = rec.match(mine)
    assert matched.match.tolist() == [
        'Matrix, The (1999)',
        'Heat (1995)',
        None,
    ] and matched.rescaled.tolist() == pytest.approx([5, 1, 1 + 4 / 3])
    with pytest.warns(UserWarning, match=r"2 of 3 titles are known; not 'Cats \(2019\)'"):
        got = rec.recommend_new(mine, exclude_seen=False)
    assert got.equals(rec.recommend_new({'Matrix, The (1999)': 5, 'Heat (1995)': 1}, exclude_seen=False))
    with pytest.raises(DataError, match="none of 1 titles is known, such as 'Cats'"):
        rec.recommend_new(pd.DataFrame(dict(title=['Cats'], rating=[3])))


def test_later_ratings_with_users_and_items_exchanged():
    "Names decide; where they say nothing, the vocabularies know"
    rows = [('x', 'a', 4.), ('y', 'b', 3.)]
    named = tiny().update(pd.DataFrame(rows, columns=['film', 'member', 'stars']), n_epoch=0)
    assert named.users == tiny().users and named.items == tiny().items and len(named.rated) == 5
    with pytest.raises(
        DataError, match="the column taken for the user holds what the model knows as title, such as 'x'"
    ):
        tiny().update(pd.DataFrame(rows, columns=['a', 'b', 'c']))


def test_ratings_of_numpy_and_pandas():
    want = tiny().recommend_new({'x': 4}, exclude_seen=False)
    for r in (np.float32(4), np.int8(4), 4.0):
        assert tiny().recommend_new({'x': r}, exclude_seen=False).equals(want)
    assert tiny().recommend_new(pd.Series({'x': 4}), exclude_seen=False).equals(want)


def test_what_is_averaged_over_users_is_averaged_once(monkeypatch):
    rec = Recommender.from_learner(trained(FORMULA['implicit, labels'], 2))
    first, all_users, real = rec.predict_new({3: 5}), [], LabelEmbedding.forward
    monkeypatch.setattr(
        LabelEmbedding, 'forward', lambda self, idx: (all_users.append(len(idx)), real(self, idx))[1]
    )
    assert (
        (rec.predict_new({3: 5}) == first).all()
        and rec.recommend_new({4: 1, 5: 2}).notna().all(axis=None)
        and all_users == []
    )
    fresh = Recommender(rec.model, rec.classes, rec.rated)
    assert (fresh.predict_new({3: 5}) == first).all() and all_users
    assert not np.allclose(
        rec.predict_new({3: 5}, labels={'people': 3}), rec.predict_new({3: 5}, labels={'people': 7})
    )


def test_doubles_only_on_the_cpu():
    "Some accelerators have no float64: first to the CPU, then to double"
    source = Path(recommendation.__file__).read_text()
    assert '.double().cpu()' not in source and source.count('.cpu().double()') >= 4


def test_labels_of_somebody_new():
    rec = Recommender.from_learner(trained(FORMULA['labels'], 10))
    three, seven = (rec.predict_new({}, labels={'people': [l]}) for l in (3, 7))
    assert not np.allclose(three, seven) and len(rec.recommend_new({}, 3, labels={'people': 3})) == 3
    for labels, words in (
        ({'age': [3]}, "called 'age'; there are 'people'"),
        ({'people': [4]}, 'no people is called 4; there are 3, 7'),
    ):
        with pytest.raises(ValueError, match=words): rec.fold_in({}, labels)
    with pytest.raises(NotInModel, match='no labels of users'): tiny().fold_in({}, {'people': [3]})


def test_solve_against_ridge_and_gradient():
    g = torch.Generator().manual_seed(0)
    A, b, mean = (
        torch.randn(30, 4, generator=g).double(),
        torch.randn(30, generator=g).double(),
        torch.randn(4, generator=g).double(),
    )
    P = torch.diag(torch.tensor([1., 2, 3, 4])).double(); P[0, 1] = P[1, 0] = .5
    r = 3 + torch.randn(30, generator=g).double()
    w = solve_user(A, b, r, mean, P, .7)
    assert torch.allclose(w, torch.linalg.solve(A.T@A/.7 + P, A.T@(r - b)/.7 + P@mean))
    w = solve_user(A, b, r, mean, P, .7, (0, 5.5)).requires_grad_()
    cost = ((r - 5.5*torch.sigmoid(A@w + b))**2).sum()/.7 + (w - mean)@P@(w - mean)
    # a stationary point
    assert torch.autograd.grad(cost, w)[0].norm() < 1e-3
    assert torch.allclose(solve_user(A[:0], b[:0], r[:0], mean, P, .7, (0, 5.5)), mean)


# Saving and loading

def resum(folder, **changes):
    "Make the manifest fit the files again, as a forger would"
    m = json.loads((folder/'manifest.json').read_text()) | changes
    m['files'] = {
        n: dict(bytes=len(d := (folder / n).read_bytes()), sha256=hashlib.sha256(d).hexdigest())
        for n in m['files']
    }
    del m['sha256']
    dump = lambda o: json.dumps(o, ensure_ascii=True, sort_keys=True, indent=1).encode() + b'\n'
    m['sha256'] = hashlib.sha256(dump(m)).hexdigest()
    (folder/'manifest.json').write_bytes(dump(m))


def test_round_trip(learn, tmp_path):
    rec = Recommender.from_learner(learn)
    rec.save(tmp_path/'r')
    rng = torch.get_rng_state()
    again = Recommender.load(tmp_path/'r')
    assert torch.equal(rng, torch.get_rng_state()) and sorted(p.name for p in tmp_path.iterdir()) == ['r']
    assert again.recommend(None, 20, exclude_seen=False).equals(
        rec.recommend(None, 20, exclude_seen=False)
    ) and again.recommend(None).equals(rec.recommend(None))
    pairs = [(u, i) for u in range(1, 21) for i in range(1, 21)]
    assert (again.predict(pairs) == rec.predict(pairs)).all() and kind_of(again.model) == kind_of(rec.model)
    if rec._dot is not None:
        assert again.recommend_new({1: 5, 2: 1}, 20).equals(rec.recommend_new({1: 5, 2: 1}, 20))
    assert sorted(p.name for p in (tmp_path / 'r').iterdir()) == [
        'README.md',
        'manifest.json',
        'model.safetensors',
        'ratings.safetensors',
        'vocab.json',
    ]
    # neither a pickle nor torch's zip of them
    assert not [
        p for p in (tmp_path / 'r').iterdir() if b'\x80' == p.read_bytes()[:1] or p.read_bytes()[:2] == b'PK'
    ]


@pytest.mark.cuda
def test_trained_on_cuda_loads_on_cpu(tmp_path):
    learn = trained(MODELS['implicit'], device='cuda')
    rec = Recommender.from_learner(learn)
    assert rec.device.type == 'cuda' and learn.model.pairs.is_cuda
    top = rec.recommend(None, 5, exclude_seen=False)
    rec.save(tmp_path/'r')
    again = Recommender.load(tmp_path/'r')
    assert again.device.type == 'cpu' and np.allclose(
        again.recommend(None, 5, exclude_seen=False).predicted, top.predicted, atol=1e-4
    )
    assert (
        Recommender.load(tmp_path / 'r', device='cuda').device.type == 'cuda'
        and len(rec.recommend_new({3: 5})) == 10
    )
    assert rec.update(pd.DataFrame(dict(user=[99], item=[3], rating=[5]))).device.type == 'cuda'


def test_every_byte_flipped(tmp_path):
    tiny().save(tmp_path/'r')
    before = Recommender.load(tmp_path/'r').recommend(None, 3)
    files = {p: p.read_bytes() for p in (tmp_path/'r').iterdir()}
    card = files.pop(tmp_path/'r'/'README.md')
    for p, data in files.items():
        for k in range(len(data)):
            for bit in (1, 128):
                p.write_bytes(data[:k] + bytes([data[k] ^ bit]) + data[k + 1:])
                with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')
        for cut in (0, 1, len(data)//2, len(data) - 1):
            p.write_bytes(data[:cut])
            with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')
        p.write_bytes(data + b'\n')
        with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')
        p.write_bytes(data)
    # the card is for readers: nothing depends on it
    for k in range(0, len(card), 97):
        (tmp_path/'r'/'README.md').write_bytes(card[:k] + bytes([card[k] ^ 1]) + card[k + 1:])
        assert Recommender.load(tmp_path/'r').recommend(None, 3).equals(before)
    assert Recommender.load(tmp_path / 'r').recommend(None, 3).equals(before) and sorted(
        tmp_path.iterdir()
    ) == [tmp_path / 'r']


@pytest.mark.parametrize('kind', ['bias', 'implicit'])
def test_forged_bytes_never_crash(kind, tmp_path):
    """Every third byte changed, and the sums made to fit: refused, or a model that answers with finite
    ratings of known titles"""
    labels = [LabelSet('l', 'item', ['#na#', 'p'], torch.tensor([[0], [1], [0], [1]]))]
    tiny(None if kind == 'bias' else SVDpp(4, 4, 1, R, torch.tensor([[1, 1], [2, 3]]), labels)).save(
        tmp_path / 'r'
    )
    loaded = refused = 0
    for p in sorted((tmp_path/'r').iterdir()):
        if p.name in ('manifest.json', 'README.md'): continue
        data = p.read_bytes()
        for k in range(0, len(data), 3):
            p.write_bytes(data[:k] + bytes([data[k] ^ (1 << k//3 % 8)]) + data[k + 1:])
            resum(tmp_path/'r')
            try: rec = Recommender.load(tmp_path/'r')
            except BadFolder: refused += 1; continue
            loaded += 1
            got = rec.recommend(None, 3, exclude_seen=False)
            assert np.isfinite(got.predicted).all() and len(got) == 9
        p.write_bytes(data)
    assert refused > 100 and loaded > 20


def test_swapped_missing_and_alien_files(tmp_path):
    a, b = tmp_path/'a', tmp_path/'b'
    tiny().save(a)
    torch.manual_seed(5)
    other = Recommender(DotProductBias(4, 4, 2, R), tiny().classes, tiny().rated)
    other.model.user_factors.weight.data += 1
    other.save(b)

    def refused(words, folder=a):
        with pytest.raises(BadFolder, match=words): Recommender.load(folder)
    keep = (a/'model.safetensors').read_bytes()
    (a / 'model.safetensors').write_bytes((b / 'model.safetensors').read_bytes())
    refused('damaged or was exchanged')
    (a/'model.safetensors').unlink(); refused('the folder should hold')
    (a/'model.safetensors').symlink_to(b/'model.safetensors'); refused('it is a link')
    (a/'model.safetensors').unlink(); (a/'model.safetensors').mkdir(); refused('model.safetensors')
    (a/'model.safetensors').rmdir(); os.mkfifo(a/'model.safetensors'); refused('not a plain file')
    (a/'model.safetensors').unlink(); (a/'model.safetensors').write_bytes(keep); Recommender.load(a)
    (a/'notes.txt').write_text('mine'); refused('and holds')
    with pytest.raises(FileExistsError): tiny().save(a)
    assert (a/'notes.txt').read_text() == 'mine'; (a/'notes.txt').unlink()
    refused('not a saved recommender', tmp_path); refused('No such', tmp_path/'none')
    with pytest.raises(BadFolder, match='more than 100 are not read'): Recommender.load(a, max_bytes=100)
    (tmp_path / 'alien').mkdir()
    (tmp_path / 'alien' / 'manifest.json').write_text('{"format": "other"}\n')
    refused('not', tmp_path / 'alien')


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(version=1), 'version 1; this package reads version 2: train and save'),
        (dict(version=True), 'version True'),
        (dict(kind='nobody'), "kind 'nobody'"),
        (dict(kind='DotProductBiasScratch'), 'should hold'),
        (dict(extra=1), 'entries'),
        (dict(args=dict(n_users=10**12, n_items=4, n_factors=2, y_range=[0.5, 5.5])), 'vocabularies have'),
        (dict(args=dict(n_users=4, n_items=4, n_factors=10**9, y_range=[0.5, 5.5])), 'should be'),
        (dict(args=dict(n_users=10**40, n_items=4, n_factors=2, y_range=None)), 'kind'),
        (dict(args=dict(n_users=4, n_items=4, n_factors=2, y_range=['a', 'b'])), 'range'),
        (dict(args=dict(n_users=4, n_items=4, n_factors=2, y_range=[5.5, 0.5])), 'range'),
        (dict(args=dict(n_users=-4, n_items=4, n_factors=2, y_range=None)), 'kind'),
        (dict(args=dict(nothing=1)), 'kind'),
        (dict(args=dict(n_users=4, n_items=4, n_factors=1, y_range=[0.5, 5.5])), 'should be'),
        (dict(rating_range=[1, 4]), 'another range'),
        (dict(rating_range=[]), 'another range'),
        (dict(sizes=[4, 5]), 'names of items'),
        (dict(columns=dict(user='u', item='u', rating='r')), 'columns'),
        (dict(files={'../x': dict(bytes=1, sha256='')}), 'lists'),
        (dict(files={'vocab.json': dict(bytes=1, sha256='')}), 'lists'),
    ],
)
def test_forged_manifests(changes, words, tmp_path):
    tiny().save(tmp_path/'r')
    m = json.loads((tmp_path/'r'/'manifest.json').read_text()) | changes
    del m['sha256']
    dump = lambda o: json.dumps(o, ensure_ascii=True, sort_keys=True, indent=1).encode() + b'\n'
    (tmp_path/'r'/'manifest.json').write_bytes(dump(m | dict(sha256=hashlib.sha256(dump(m)).hexdigest())))
    with pytest.raises(BadFolder, match=words): Recommender.load(tmp_path/'r')


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100000,
        'nan',
        '{"a": NaN}',
        '9' * 10000,
        '{"format": 1, "format": 2}',
        '',
        '\ufeff{}',
        'é',
        'null',
        '{"format": "collab_course.Recommender", "version": 2}',
    ],
)
def test_manifests_that_are_none(text, tmp_path):
    tiny().save(tmp_path/'r')
    (tmp_path/'r'/'manifest.json').write_text(text, encoding='utf-8')
    with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')


def test_training_pairs_are_held_once(tmp_path):
    "In the folder always; in memory where all that is rated was trained on"
    from safetensors.torch import load_file
    for seen, shared in (('train', True), ('all', False)):
        rec = Recommender.from_learner(trained(MODELS['ensemble'], 1), seen=seen)
        rec.save(tmp_path/seen)
        assert not [k for k in load_file(tmp_path/seen/'model.safetensors') if 'history' in k]
        again = Recommender.load(tmp_path/seen)
        own = again.model.models[1].history
        assert torch.equal(own.pairs, rec.model.models[1].history.pairs) and again.recommend(None, 5).equals(
            rec.recommend(None, 5)
        )
        assert (own.items.data_ptr() == again.rated.items.data_ptr()) == shared
        assert torch.equal(own.pairs, again.rated.pairs[again.rated.trained])
    # trained on other pairs than those rated
    other = tiny(SVDpp(4, 4, 2, R, torch.tensor([[1, 1], [2, 3]])))
    other.save(tmp_path/'other')
    assert {'history.start', 'history.items'} <= set(load_file(tmp_path/'other'/'model.safetensors'))
    assert Recommender.load(tmp_path/'other').model.pairs.tolist() == [[1, 1], [2, 3]]
    files = json.loads((tmp_path/'train'/'manifest.json').read_text())['files']
    # without the ratings there is no model
    (tmp_path/'train'/'ratings.safetensors').unlink()
    resum(tmp_path/'train', files={k: v for k, v in files.items() if k != 'ratings.safetensors'})
    with pytest.raises(BadFolder, match='should hold'): Recommender.load(tmp_path/'train')


def test_forged_tensors(tmp_path):
    from safetensors.torch import load_file, save_file
    folder = tmp_path/'r'
    labels = [LabelSet('l', 'item', ['#na#', 'p'], torch.tensor([[0], [1], [0], [1]]))]
    model = SVDpp(4, 4, 1, R, torch.tensor([[1, 1], [2, 3]]), labels)
    def forged(words, name='model.safetensors', **changes):
        tiny(copying.deepcopy(model)).save(folder)
        t = {k: v for k, v in (load_file(folder/name) | changes).items() if v is not None}
        save_file(t, folder/name); resum(folder)
        with pytest.raises(BadFolder, match=words): Recommender.load(folder)
    key = 'user_factors.weight'
    forged('should hold', **{key: None})
    forged('should hold', more=torch.zeros(1))
    forged('should be', **{key: torch.zeros(4, 1).double()})
    forged('should be', **{key: torch.zeros(5, 1)})
    forged('NaN', **{key: torch.full((4, 1), torch.nan)})
    forged('out of bounds', **{'history.items': torch.tensor([1, 10**9], dtype=torch.int32)})
    forged('out of bounds', **{'history.items': torch.tensor([1, 4], dtype=torch.int32)})
    forged('out of bounds', **{'label_factors.0.table': torch.tensor([[0], [2], [0], [0]])})
    forged('out of bounds', **{'history.items': torch.tensor([1, -1], dtype=torch.int32)})
    for k, v in dict(
        start=torch.tensor([0, 0, 9, 3, 5]),
        items=torch.tensor([1, 2, 2, 3, 9], dtype=torch.int32),
        ratings=torch.tensor([1.0, 5, 3, torch.inf, 2]),
        trained=torch.ones(4, dtype=torch.bool),
    ).items():
        forged('ratings.safetensors', 'ratings.safetensors', **{k: v})
    forged('not in order', 'ratings.safetensors', items=torch.tensor([2, 1, 2, 3, 1], dtype=torch.int32))
    forged('beyond 1e12', **{key: torch.full((4, 1), 1e30)})
    forged('beyond 1e12', 'ratings.safetensors', ratings=torch.tensor([1.0, 5, 3, 1e30, 2]))
    for dtype in (
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.bool,
    ):
        forged('should be', **{key: torch.zeros(4, 1).to(dtype)})
    huge = (
        b'{"user_factors.weight":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4000000000000]}}'
    )
    tiny(copying.deepcopy(model)).save(folder)
    for data in (
        len(huge).to_bytes(8, 'little') + huge,
        (2**63).to_bytes(8, 'little') + b'{}',
        b'\xff' * 8,
        b'',
        b'PK\x03\x04' + bytes(100),
        pickle.dumps({'a': 1}),
    ):
        (folder/'model.safetensors').write_bytes(data); resum(folder)
        with pytest.raises(BadFolder, match='not a safetensors file'): Recommender.load(folder)


def test_a_manifest_that_asks_for_a_million_layers(tmp_path):
    tiny(EmbeddingNN([(4, 2), (4, 2)], [4, 3])).save(tmp_path/'r')
    m = json.loads((tmp_path/'r'/'manifest.json').read_text())
    resum(tmp_path/'r', args=m['args'] | dict(layers=[1]*100_000, ps=[0.]*100_000))
    start = time.perf_counter()
    with pytest.raises(BadFolder, match='more parts than the'): Recommender.load(tmp_path/'r')
    assert time.perf_counter() - start < 5


def test_a_net_that_gives_no_numbers(tmp_path):
    "Numbers that are each in order, and whose product is not: found out where they are used"
    from safetensors.torch import load_file, save_file
    tiny(EmbeddingNN([(4, 2), (4, 2)], [4, 3, 3], use_bn=False)).save(tmp_path/'r')
    t = {
        k: torch.full_like(v, 1e12)
        if 'embeds' not in k or v.shape[0] != 4
        else torch.cat([v[:1] * 0, torch.full_like(v[1:], 1e12)])
        for k, v in load_file(tmp_path / 'r' / 'model.safetensors').items()
    }
    save_file(t, tmp_path/'r'/'model.safetensors'); resum(tmp_path/'r')
    with pytest.raises(DataError, match='no finite ratings|NaN or infinite'):
        Recommender.load(tmp_path / 'r').recommend('b', 3)


def test_a_device_that_is_not_there_is_no_fault_of_the_folder(tmp_path):
    tiny().save(tmp_path/'r')
    device = 'cuda:99' if torch.cuda.is_available() else 'cuda'
    with pytest.raises(Exception) as e: Recommender.load(tmp_path/'r', device=device)
    assert not isinstance(e.value, DataError)


def test_a_link_without_the_systems_help(tmp_path, monkeypatch):
    tiny().save(tmp_path / 'r')
    (tmp_path / 'r' / 'vocab.json').rename(tmp_path / 'v')
    (tmp_path / 'r' / 'vocab.json').symlink_to(tmp_path / 'v')
    monkeypatch.delattr(os, 'O_NOFOLLOW')
    with pytest.raises(BadFolder, match='it is a link'): Recommender.load(tmp_path/'r')


def test_every_kind_loads_in_a_fresh_process(tmp_path):
    for name, make in MODELS.items(): Recommender.from_learner(trained(make, 1)).save(tmp_path/name)
    code = (f"from pathlib import Path; from collab_course.saving import Recommender\nfor p in "
            f"sorted(Path({str(tmp_path)!r}).iterdir()): print(len(Recommender.load(p).recommend(1, 3, "
            f"exclude_seen=False)))")
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.split() == ['3']*len(MODELS), run.stderr


def test_interpretation_of_a_loaded_one(tmp_path):
    rec = Recommender.from_learner(trained(MODELS['labels'], 2))
    rec.save(tmp_path/'r')
    assert (
        Recommender.load(tmp_path / 'r').interpretation.top_bias(5).equals(rec.interpretation.top_bias(5))
        and len(rec.interpretation.info('parity')) == 2
    )


def test_a_pickle_in_the_folder_is_not_run(tmp_path):
    class Harmless:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'proof'),)
    tiny().save(tmp_path/'r')
    for name in ('model.safetensors', 'ratings.safetensors', 'vocab.json'):
        tiny().save(tmp_path/'r')
        (tmp_path/'r'/name).write_bytes(pickle.dumps(Harmless())); resum(tmp_path/'r')
        with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')
        torch.save(Harmless(), tmp_path/'r'/name); resum(tmp_path/'r')
        with pytest.raises(BadFolder): Recommender.load(tmp_path/'r')
    assert not (tmp_path/'proof').exists()
    source = Path(saving.__file__).read_text()
    assert not [
        w for w in ('import pickle', 'pickle.', 'torch.load', ' eval(', 'exec(', '__import__') if w in source
    ]


def test_saving_leaves_nothing_half_written(tmp_path, monkeypatch):
    rec, folder = tiny(), tmp_path/'deep'/'r'
    rec.save(folder); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real, calls = os.rename, []
    def fail(a, b):
        calls.append(a)
        if len(calls) == 2: raise OSError('disk is gone')
        return real(a, b)
    other = tiny(DotProduct(4, 4, 2))
    monkeypatch.setattr(os, 'rename', fail)
    with pytest.raises(OSError, match='disk is gone'): other.save(folder)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ['r']
    monkeypatch.setattr(os, 'fsync', lambda fd: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'): other.save(folder)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and [
        p.name for p in folder.parent.iterdir()
    ] == ['r']
    other.save(folder); assert type(Recommender.load(folder).model) is DotProduct
    (tmp_path / 'empty').mkdir()
    rec.save(tmp_path / 'empty')
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'manifest.json').write_text('{}')
    for taken in ('file', 'mine'):
        with pytest.raises(FileExistsError): rec.save(tmp_path/taken)
    with pytest.raises(NotADirectoryError): rec.save(tmp_path/'file'/'r')
    (tmp_path/'link').symlink_to(folder)
    with pytest.raises(FileExistsError): rec.save(tmp_path/'link')
    assert (tmp_path/'file').read_text() == 'mine' and (tmp_path/'mine'/'manifest.json').read_text() == '{}'


@pytest.mark.parametrize('first', [1, 2, 3])
def test_the_only_good_copy_is_never_deleted(first, tmp_path, monkeypatch):
    "From the given call on, every renaming fails: what was saved before is in its place, or beside it"
    rec, folder = tiny(), tmp_path/'r'
    rec.save(folder); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real, calls = os.rename, []
    def fail(a, b):
        calls.append(a)
        if len(calls) >= first: raise OSError('disk is gone')
        return real(a, b)
    monkeypatch.setattr(os, 'rename', fail)
    # two are all it takes
    if first == 3: tiny(DotProduct(4, 4, 2)).save(folder)
    else:
        with pytest.raises(
            OSError, match='disk is gone' if first == 1 else 'neither be replaced nor brought back'
        ):
            tiny(DotProduct(4, 4, 2)).save(folder)
    monkeypatch.undo()
    found = [p.parent for p in tmp_path.rglob('manifest.json')]
    assert len(found) == 1 and len(calls) == {1: 1, 2: 3, 3: 2}[first]
    assert ({p.name: p.read_bytes() for p in found[0].iterdir()} == before) == (first < 3) and (
        found[0] == folder
    ) == (first != 2)
    if first == 2: os.rename(found[0], folder)
    assert type(Recommender.load(folder).model) is (DotProduct if first == 3 else DotProductBias)


def test_an_interruption_between_the_renamings(tmp_path, monkeypatch):
    rec, folder = tiny(), tmp_path/'r'
    rec.save(folder); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real, calls = os.rename, []
    def interrupted(a, b):
        real(a, b); calls.append(a)
        if len(calls) == 1: raise KeyboardInterrupt
    monkeypatch.setattr(os, 'rename', interrupted)
    with pytest.raises(KeyboardInterrupt): tiny(DotProduct(4, 4, 2)).save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and sorted(tmp_path.iterdir()) == [
        folder
    ]


def test_the_root_is_no_place_for_a_recommender():
    with pytest.raises((FileExistsError, PermissionError)): check_folder('/')


def test_ids_of_all_kinds(tmp_path):
    for ids in ((1, 2, 3), (1.5, 2., 1e300), ('é', 'x\ud800', '"\\\n'), (True, 0, 'mixed')):
        rec = tiny(ids=ids); rec.save(tmp_path/'r'); again = Recommender.load(tmp_path/'r')
        assert again.users == rec.users and [type(u) for u in again.users] == [type(u) for u in rec.users]
    for ids in ((pd.Timestamp('2020'), 1, 2), ((1, 2), 1, 2), (float('inf'), 1, 2)):
        with pytest.raises(DataError, match='cannot be written as JSON'): tiny(ids=ids).save(tmp_path/'no')
    class Own(DotProductBias): pass

    with pytest.raises(NotInModel, match='not known to be loaded again'):
        tiny(Own(4, 4, 2)).save(tmp_path / 'no')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['r']


# Ratings that come later

def test_growing(learn):
    model = learn.model
    big = grow(model, 24, 23)
    u, i = torch.arange(21)[:, None], torch.arange(21)
    assert sizes(big) == (24, 23) and score(big, 23, 22).isfinite()
    assert torch.allclose(score(big, u, i), score(model, u, i), atol=1e-5) and sizes(model) == (21, 21)
    with pytest.raises(ValueError, match='cannot shrink'): grow(model, 20, 21)


def test_update(learn):
    rec = Recommender.from_learner(learn)
    new = pd.DataFrame(
        [(99, i, 5 if i % 2 else 1) for i in range(1, 11)]
        + [(u, 77, 5 if u % 2 else 1) for u in range(1, 21)]
        + [(1, 1, 1)],
        columns=['user', 'item', 'rating'],
    )
    torch.manual_seed(3); rng = torch.get_rng_state()
    more = rec.update(new, n_epoch=1)
    assert torch.equal(rng, torch.get_rng_state())
    assert (
        sizes(more.model) == (22, 22)
        and more.users[:-1] == rec.users
        and more.items[-1] == 77
        and sizes(rec.model) == (21, 21)
        and len(rec.rated) == 400
    )
    assert (
        len(more.rated) == 430
        and len(more.recommend(99, 30)) == 11
        and not more.model.training
        and not any(p.requires_grad for p in more.model.parameters())
    )
    who, rows = more.rated.of(torch.tensor([1]))
    # the new rating of an old pair
    assert more.rated.ratings[rows][0] == 1
    again = rec.update(new, n_epoch=1)
    # the same seed, the same numbers
    assert all(
        torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), more.model.state_dict().values())
    )


def test_only_new_rows_move_first(learn):
    """Old predictions stay as they are to the last digits, whatever the model is made of, and the new rows
    learn"""
    rec = Recommender.from_learner(learn)
    new = pd.DataFrame([(99, i, 5 if i % 2 else 1) for i in range(1, 13)], columns=['user', 'item', 'rating'])
    more = rec.update(new, n_epoch=0)
    u, i = torch.arange(1, 21)[:, None], torch.arange(1, 21)
    # who rated a film is part of it there, so films 1 to 12 change, and should
    if any(k.endswith('history.items') for k in rec.model.state_dict()): i = torch.arange(13, 21)
    assert torch.allclose(score(more.model, u, i), score(rec.model, u, i), atol=1e-5)
    assert not torch.allclose(
        score(more.model, 21, i),
        score(grow(rec.model, 22, 21, more.rated.pairs[more.rated.trained]), 21, i),
        atol=1e-3,
    )
    # one row in all
    one = rec.update(new[:1], n_epoch=0)
    assert torch.allclose(score(one.model, u, i), score(rec.model, u, i), atol=1e-5)


def test_a_batch_of_one_row(learn):
    "One new rating alone, and as what is left over after full batches"
    rec = Recommender.from_learner(learn)
    new = pd.DataFrame(dict(user=[99], item=[3], rating=[5]))
    for kwargs in (dict(sample=0), dict(recipe=replace(recipes['fast'], bs=int(rec.rated.trained.sum())))):
        more = rec.update(new, n_epoch=1, **kwargs)
        assert (
            np.isfinite(more.recommend(None, 20, exclude_seen=False).predicted).all()
            and len(more.recommend(99, 30)) == 19
        )


def test_new_rows_of_the_sixth_model():
    rec = Recommender.from_learner(trained(MODELS['implicit'], 30))
    new = pd.DataFrame([(99, i, 5 if i % 2 else 1) for i in range(1, 13)], columns=['user', 'item', 'rating'])
    more = rec.update(new, n_epoch=0)
    for k, v in rec.model.state_dict().items():
        w = more.model.state_dict()[k]
        if k == 'history.items': assert len(w) == len(v) + 12
        elif k == 'history.start': assert torch.equal(w[:22], v) and w[22] == v[-1] + 12
        elif k == 'implicit.weight':
            assert (
                torch.equal(w[:21], v[:21])
                and torch.equal(w[22:], v[21:])
                and not torch.equal(w[21], v[1:21].mean(0))
            )
        elif len(w) == 22: assert torch.equal(w[:21], v)
        else: assert torch.equal(w, v)
    left = pd.Series(more.predict([(99, i) for i in range(13, 21)]), range(13, 21))
    # it has learned on which side 99 is
    assert left[left.index % 2 == 1].mean() > left[left.index % 2 == 0].mean() + 1


def test_unusable_updates():
    rec = tiny()
    with pytest.raises(DataError, match="holds strs such as 'c'"):
        rec.update(pd.DataFrame(dict(user=[5], title=['x'], rating=[3])))
    with pytest.raises(DataError, match='not a finite number'):
        rec.update(pd.DataFrame(dict(user=['a'], title=['x'], rating=['five'])))
    with pytest.raises(ValueError, match="no recipe is called 'slow'"):
        rec.update(pd.DataFrame(dict(user=['a'], title=['x'], rating=[3])), recipe='slow')
    with pytest.raises(ValueError, match='from 0 to 1'):
        rec.update(pd.DataFrame(dict(user=['a'], title=['x'], rating=[3])), sample=2)
    table = lambda r: pd.DataFrame(dict(user=['a'], title=['y'], rating=[r]))
    for r in (500, -1, .4):
        for kwargs in ({}, dict(wider=True)):
            with pytest.raises(
                DataError,
                match=f"1 new ratings such as {r:g} are not from 0.5 to 5.5, all that the model can predict",
            ):
                rec.update(table(r), **kwargs)
    # beyond those known, and the model can predict it
    assert len(rec.update(table(5.5), n_epoch=1).rated) == 5
    for model in (DotProductBias(4, 4, 2, None), CollabNN((4, 2), (4, 2), None, 3)):
        with pytest.raises(
            DataError,
            match="such as 500 are not from 1 to 5, as those known are: if that is meant, say wider=True",
        ):
            tiny(model).update(table(500))
        assert tiny(model).update(table(9), n_epoch=1, wider=True).rating_range == (1, 9)
    class Classes(DotProductBias):
        def to_rating(self, x): return x

    with pytest.raises(NotInModel, match='not trained on ratings directly'):
        tiny(Classes(4, 4, 2)).update(pd.DataFrame(dict(user=['a'], title=['x'], rating=[3])))
    # the first three columns
    only = rec.update(pd.DataFrame(dict(who=['d', 'a'], what=['w', 'x'], stars=[5, 2])), n_epoch=1, sample=0)
    assert only.users[-1] == 'd' and only.items[-1] == 'w' and len(only.rated) == 6


def later(*rows): return pd.DataFrame(rows, columns=['user', 'item', 'rating'])


def with_blanks(read):
    "A recommender of ratings in which every second film has blanks around its name"
    films = [f' film {i} ' if i % 2 else f'film {i}' for i in range(8)]
    rows = [(f'u{u}', film, 1 + (u + i) % 5) for u in range(8) for i, film in enumerate(films)]
    dls = RatingsDataLoaders.from_df(read(later(*rows)), valid_pct=0, seed=0, bs=16)
    model = DotProductBias(dls.n_users, dls.n_items, 2, R)
    return Recommender.from_learner(Learner(dls, model, loss_func=mse_flat))


@pytest.mark.parametrize('read', [lambda table: table, read_ratings], ids=['as it is', 'read'])
def test_blanks_around_a_name_make_no_other_one(read):
    rec = with_blanks(read)
    for film in ('film 3', ' film 3 ', 'film 3\t', 'film 4', ' film 4'):
        for user in ('u1', ' u1 '):
            more = rec.update(later((user, film, 2.)), n_epoch=0)
            assert more.classes == rec.classes and len(more.rated) == len(rec.rated) == 64
            [known] = [name for name in rec.items if name.strip() == film.strip()]
            pair = torch.tensor([rec.users.index('u1'), rec.items.index(known)])
            changed = more.rated.ratings[(more.rated.pairs == pair).all(1)]
            assert changed.tolist() == [2.]
    with pytest.warns(UserWarning, match='1 rows repeat'):
        new = later(('u1', ' film 9', 2.), ('u1', 'film 9 ', 3.), (' u9', 'film 9', 4.))
        more = rec.update(new, n_epoch=0)
    assert more.items == [*rec.items, 'film 9'] and more.users == [*rec.users, 'u9']
    assert more.update(later(('u2', ' film 9 ', 2.)), n_epoch=0).items == more.items


def test_blanks_in_the_files_of_the_command(tmp_path, capsys):
    rows = [f'u{u}, film {i} ,{1 + (u + i) % 5}' for u in range(8) for i in range(8)]
    (tmp_path/'a.csv').write_text('\n'.join(['user,item,rating', *rows]))
    new = [f' new,film {i},{1 + i % 5}' for i in range(10)]
    (tmp_path/'b.csv').write_text('\n'.join(['user,item,rating', *new]))
    out_of(capsys, 'train', tmp_path/'a.csv', '--valid', 0, '--epochs', 1, '--out', tmp_path/'m')
    done = out_of(capsys, 'update', tmp_path/'m', tmp_path/'b.csv', '--out', tmp_path/'m')
    assert '9 users and 10 items, 74 ratings' in done


@pytest.mark.parametrize('name', ['labels', 'implicit, labels', 'labels net', 'labels in an ensemble'])
def test_labels_of_those_who_came_later(name, tmp_path):
    models = MODELS | {'labels in an ensemble': lambda d: Ensemble([FORMULA['labels'](d)])}
    rec = Recommender.from_learner(trained(models[name], 1))
    new = later((99, 1, 5), (98, 2, 1), (1, 77, 5), (2, 78, 1))
    labels = dict(parity={77: 'odd', 78: ['even', 'odd', 'even']}, people={99: [7, 3]})
    if name == 'labels in an ensemble': del labels['people']
    more = rec.update(new, n_epoch=0, labels=labels)
    tables = {m.name: m for m in more.model.modules() if isinstance(m, LabelEmbedding)}
    index = {title: k for k, title in enumerate(more.items)}
    assert tables['parity'].table[[index[77], index[78]]].tolist() == [[1, 0], [1, 2]]
    if 'people' in labels:
        of_99, of_98 = tables['people'].table[[more.users.index(99), more.users.index(98)]].tolist()
        assert of_99 == [1, 2] and of_98 == [0, 0]                              # none was said
    assert all(m.labels['width'] == m.table.shape[1] for m in tables.values())
    # what is known of others stays, and the folder holds it all
    old = {m.name: m for m in rec.model.modules() if isinstance(m, LabelEmbedding)}
    width = old['parity'].table.shape[1]
    assert torch.equal(tables['parity'].table[:21, :width], old['parity'].table)
    again = Recommender.load(more.save(tmp_path/'r'))
    assert np.array_equal(again.predict([(99, 77)]), more.predict([(99, 77)]))
    # the labels are used: with others, the untrained rows say something else
    other = rec.update(new, n_epoch=0, labels=labels | dict(parity={77: 'even'}))
    assert not np.array_equal(other.predict([(5, 77)]), more.predict([(5, 77)]))


def test_a_table_that_must_become_wider(tmp_path):
    wide = LabelSet('one', 'item', ['#na#', 'p', 'q', 'r'], torch.tensor([[0], [1], [2], [3]]))
    rec = tiny(DotProductLabels(4, 4, 2, R, [wide]))
    new = pd.DataFrame(dict(user=['a'], title=['w'], rating=[4.]))
    more = rec.update(new, n_epoch=1, labels={'one': pd.Series({'w': ['r', 'p']})})
    assert more.model.label_factors[0].table.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [1, 3]]
    assert rec.model.label_factors[0].table.shape == (4, 1)                     # the old one stays as it is
    again = Recommender.load(more.save(tmp_path/'r'))
    assert torch.equal(again.model.label_factors[0].table, more.model.label_factors[0].table)
    assert len(again.update(new.assign(title='v'), n_epoch=0).items) == 6


def test_unusable_labels_of_those_who_came_later():
    rec = Recommender.from_learner(trained(FORMULA['labels'], 1))
    new = later((99, 1, 5), (1, 77, 5))
    for labels, error, words in (
        (dict(genre={77: 'odd'}), NotInModel, "no labels called 'genre'; there are 'parity', 'people'"),
        (dict(parity={77: 'prime'}), DataError, "no parity is called 'prime'; there are 'odd', 'even'"),
        (dict(parity={7: 'odd'}), DataError, 'rated here for the first time, not for 7'),
        (dict(parity={99: 'odd'}), DataError, 'labels are for a new item'),
        (dict(people={12345: 3}), DataError, 'labels are for a new user'),
        (dict(people={99: object()}), DataError, 'a label is text or a number'),
    ):
        with pytest.raises(error, match=words): rec.update(new, labels=labels)
    with pytest.raises(NotInModel, match="no labels called 'parity'; there are none"):
        new = pd.DataFrame(dict(user=['a'], title=['w'], rating=[3]))
        tiny().update(new, labels=dict(parity={'w': 'odd'}))
    ranker = tiny(Popularity(4, 4, tiny().rated.pairs))
    with pytest.raises(NotInModel, match='there are none'):
        ranker.update(pd.DataFrame(dict(user=['a'], title=['w'])), labels=dict(parity={'w': 'odd'}))


# On real ratings

def test_fold_in_on_real_ratings(ml, dls):
    learn = recipes['fast'].learner(dls, lambda u, i: DotProductBias(u, i, 50, (0, 5.5)))
    with learn.no_bar(), learn.no_logging(): recipes['fast'].fit(learn)
    rec = Recommender.from_learner(learn)
    rng, corr = np.random.default_rng(0), []
    for u in rng.choice(dls.n_users - 1, 200, replace=False) + 1:
        rows = dls.train_ds.x[:, 0] == u
        mine = {
            rec.items[i]: r
            for i, r in zip(dls.train_ds.x[rows, 1].tolist(), dls.train_ds.y[rows, 0].tolist())
        }
        old = score(learn.model, int(u), torch.arange(1, dls.n_items)).numpy()
        corr.append(np.corrcoef(rec.predict_new(mine), old)[0, 1])
    assert np.median(corr) > .95


# The commands

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cli')
    r = synthetic_ratings(40, 30, 600).ratings
    r.to_csv(folder/'numbers.csv', index=False)
    r.assign(user='u' + r.user.astype(str), item='Film, ' + r['item'].astype(str) + ' (=x)').to_csv(
        folder / 'text.csv', index=False
    )
    for name in ('numbers', 'text'):
        assert (
            main(
                ['train', str(folder / f'{name}.csv'), '--out', str(folder / name), '--epochs', '2', '--json']
            )
            == 0
        )
    return folder


def out_of(capsys, *args, status=0):
    capsys.readouterr()
    assert main([*map(str, args)]) == status
    out, err = capsys.readouterr()
    if status: assert out == '' and err.startswith('collab-course: ') and err.count('\n') == 1
    else: assert not [line for line in err.splitlines() if 'highest predicted ratings' not in line]
    return err if status else out


def test_recommend_command(saved, capsys):
    rec = Recommender.load(saved/'numbers')
    got = json.loads(out_of(capsys, 'recommend', saved/'numbers', '--user', 7, '-n', 3, '--json'))
    want = rec.recommend(7, 3)
    assert (
        got['user'] == 7
        and [r['item'] for r in got['items']] == want['item'].tolist()
        and np.allclose([r['predicted'] for r in got['items']], want.predicted, atol=1e-3)
    )
    assert out_of(capsys, 'recommend', saved/'numbers', '--user', 7, '-n', 3).count('\n') == 4
    got = json.loads(out_of(capsys, 'recommend', saved/'text', '--user', 'u7', '--json'))
    assert (
        got['user'] == 'u7'
        and len(got['items']) == 5
        and sorted(r['item'] for r in got['items'])
        == sorted(Recommender.load(saved / 'text').recommend('u7', 99)['item'])
    )
    new = json.loads(
        out_of(
            capsys,
            'recommend',
            saved / 'text',
            '--rated',
            'Film, 3 (=x)=5',
            '--rated',
            'Film, 4 (=x)=1',
            '-n',
            2,
            '--json',
        )
    )
    assert (
        new['rated'] == [dict(item='Film, 3 (=x)', rating=5.0), dict(item='Film, 4 (=x)', rating=1.0)]
        and len(new['items']) == 2
    )
    assert (
        'what most people rated' in out_of(capsys, 'recommend', saved / 'text')
        and len(
            json.loads(
                out_of(
                    capsys,
                    'recommend',
                    saved / 'numbers',
                    '--rated',
                    '3=4',
                    '--json',
                    '--include-seen',
                    '-n',
                    99,
                )
            )['items']
        )
        == 30
    )


def test_the_same_item_twice(saved, capsys):
    got = json.loads(
        out_of(capsys, 'recommend', saved / 'numbers', '--rated', '3=1', '--rated', '3=5', '--json')
    )
    assert got['rated'] == [dict(item=3, rating=1.), dict(item=3, rating=5.)]
    assert json.loads(out_of(capsys, 'recommend', saved/'numbers', '--json'))['rated'] == []


def test_names_that_no_terminal_should_get(tmp_path, capsys):
    odd = ['a\x1b[2J', 'é\n', 'x\ud800']
    rec = Recommender(tiny().model, {'user': ['#na#', 'a', 'b', 'c'], 'title': ['#na#', *odd]}, tiny().rated)
    rec.save(tmp_path/'r')
    text, raw = (
        out_of(capsys, 'recommend', tmp_path / 'r', '--user', 'a', '--include-seen', *more)
        for more in ((), ('--json',))
    )
    assert (
        all(c.isprintable() or c == '\n' for c in text)
        and text.count('\n') == 4
        and text.count('\ufffd') == 3
        and 'é' in text
    )
    assert raw.isascii() and {r['item'] for r in json.loads(raw)['items']} == set(odd)
    near = out_of(capsys, 'similar', tmp_path/'r', odd[0])
    assert (
        near.count('\ufffd') == 2
        and near.count('\n') == 2
        and out_of(capsys, 'similar', tmp_path / 'r', odd[0], '--json').isascii()
    )


def test_who_has_rated_everything(tmp_path, capsys):
    Recommender(
        tiny().model,
        tiny().classes,
        History(torch.tensor([[1, 1], [1, 2], [1, 3]]), 4, 4, torch.tensor([1.0, 5, 3])),
    ).save(tmp_path / 'r')
    text = out_of(capsys, 'recommend', tmp_path/'r', '--user', 'a')
    assert text.count('\n') == 1 and 'everything is rated' in text and '--include-seen' in text
    assert json.loads(out_of(capsys, 'recommend', tmp_path / 'r', '--user', 'a', '--json')) == dict(
        user='a', items=[]
    )
    assert out_of(capsys, 'recommend', tmp_path/'r', '--user', 'a', '--include-seen').count('\n') == 4


def test_similar_command(saved, capsys):
    got = json.loads(out_of(capsys, 'similar', saved/'text', 'Film, 3 (=x)', '-n', 2, '--json'))
    assert [r['item'] for r in got['similar']] == Recommender.load(saved / 'text').similar('Film, 3 (=x)', 2)[
        'item'
    ].tolist() and {'item', 'cosine', 'mean', 'n_ratings'} == set(got['similar'][0])
    assert json.loads(out_of(capsys, 'similar', saved / 'numbers', 3, '--json'))[
        'item'
    ] == 3 and 'ratings)' in out_of(capsys, 'similar', saved / 'numbers', 3)


@pytest.mark.parametrize(
    'args, words',
    [
        (['recommend', '{text}', '--user', 'u999'], "no user is called 'u999'"),
        (['recommend', '{numbers}', '--user', 'x'], "no user is 'x'"),
        (['recommend', '{numbers}', '--user', '777'], 'no user is 777 (int)'),
        (['recommend', '{text}', '--rated', 'Film'], 'ITEM=RATING'),
        (['recommend', '{text}', '--rated', 'Film, 3 (=x)=9'], 'ratings here go from'),
        (['recommend', '{text}', '--rated', 'Film, 3=5'], 'did you mean'),
        (['recommend', '{text}', '--rated', '=5'], 'ITEM=RATING'),
        (['recommend', '{none}', '--user', '1'], 'No such file'),
        (['similar', '{text}', 'nothing'], 'no item is called'),
        (['recommend', '{text}', '-n', '0'], 'at least 1'),
        (['similar', '{here}', 'x'], 'not a saved recommender'),
        (['train', '{none}', '--out', '{x}'], 'no such file'),
        (['train', '{here}/text.csv'], '--out'),
        (['train', '{here}/text.csv', '--out', '{here}'], 'something else than a saved recommender'),
        (['train', '{here}/text.csv', '--out', '{here}/text.csv/x'], 'is a file'),
        (['train', '{here}/text.csv', '--out', '{x}', '--valid', '1'], 'a share'),
        (['recommend', '{text}', '--user', 'u1', '--rated', 'a=1'], 'give one of them'),
        (['similar', '{text}', 'Film, 3 (=x)', '--min-ratings', '99'], 'no other item has 99 ratings'),
        (['similar', '{text}', 'Film, 3 (=x)', '--min-ratings', '-1'], 'whole number from 0'),
        (['train', '{here}/text.csv', '--out', '{x}', '--seed', '-1'], 'whole number from 0'),
        (['train', '{here}/text.csv', '--out', '{x}', '--seed', str(2**32)], 'whole number from 0'),
        (['train', '{here}/text.csv', '--out', '/'], '/'),
    ],
)
def test_unusable_commands(args, words, saved, capsys):
    err = out_of(
        capsys,
        *[
            a.format(
                text=saved / 'text', numbers=saved / 'numbers', none=saved / 'none', here=saved, x=saved / 'x'
            )
            for a in args
        ],
        status=2,
    )
    assert words in err and not (saved/'x').exists()


def test_models_of_train(saved, tmp_path, capsys):
    for model in ('biases', 'dot-product', 'net', 'implicit'):
        got = json.loads(
            out_of(
                capsys,
                'train',
                saved / 'numbers.csv',
                '--out',
                tmp_path / model,
                '--model',
                model,
                '--epochs',
                1,
                '--valid',
                0.2,
                '--json',
            )
        )
        assert got['model'] == model and got['held_out'] == 120 and got['rmse'] > .5
        assert (
            len(
                json.loads(
                    out_of(capsys, 'recommend', tmp_path / model, '--user', 1, '--include-seen', '--json')
                )['items']
            )
            == 10
        )
    assert 'nothing to solve for' in out_of(capsys, 'recommend', tmp_path/'net', '--rated', '3=5', status=2)
    assert 'has no factors' in out_of(capsys, 'similar', tmp_path/'biases', 3, status=2)
    text = out_of(capsys, 'train', saved/'numbers.csv', '--out', tmp_path/'net', '--epochs', 1, '--valid', 0)
    assert (
        '600 ratings by 40 users of 30 items' in text
        and 'RMSE' not in text
        and type(Recommender.load(tmp_path / 'net').model) is DotProductBias
    )


def test_as_a_process(saved):
    run = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys; from collab_course.cli import main; sys.exit(main())',
            'recommend',
            str(saved / 'text'),
            '--user',
            'u3',
            '--include-seen',
            '--json',
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and len(json.loads(run.stdout)['items']) == 10
    assert 'EASE' in run.stderr and run.stderr.count('\n') == 1

def _three_films():
    pairs, classes = torch.tensor([[1, 1], [2, 2]]), {'user': ['#na#', 'A', 'B'], 'title': ['#na#', 'x', 'y']}
    return Recommender(DotProductBias(3, 3, 1), classes, History(pairs, 3, 3, torch.tensor([1., 5])))

def test_similar_neither_scores_pairs_nor_inverts_a_matrix(monkeypatch):
    from collab_course import recommendation
    def never(*args, **kwargs): raise AssertionError('this is not needed yet')
    rec = _three_films()
    with monkeypatch.context() as m:
        m.setattr(recommendation, 'score', never)
        m.setattr(torch.linalg, 'inv', never)
        rec = _three_films()
        assert rec.similar('x').title.tolist() == ['y']
    assert rec.recommend('A').title.tolist() == ['y']
    assert len(rec.recommend_new({'x': 5.})) == 1

def test_saving_needs_no_import_of_saving(tmp_path):
    import subprocess, sys
    code = ("import sys, pandas; from collab_course.recommendation import Recommender; "
            "assert 'collab_course.saving' not in sys.modules; "
            "print(Recommender.load(sys.argv[1]).recommend('A').title.tolist())")
    folder = _three_films().save(tmp_path/'films')
    out = subprocess.run([sys.executable, '-c', code, str(folder)], capture_output=True, text=True)
    assert out.stdout.strip() == "['y']", out.stderr


# Sharing

def test_the_card_of_a_saved_recommender(tmp_path):
    rec = tiny(ids=('Ann Onym', 'Bob Onym', 'Cle Onym'))
    data = 'a <b>file</b> | of\nmine [x](http://y)'
    folder = rec.save(tmp_path/'r', data, {'RMSE on 9': .98761})
    card = (folder/'README.md').read_text()
    front, body = card.split('---\n')[1:3]
    assert front == 'library_name: collab_course\ntags:\n- collaborative-filtering\n- recommender-systems\n'
    assert r'a &lt;b&gt;file&lt;/b&gt; \| of mine \[x\](http://y)' in body and '<b>' not in card
    for words in ('DotProductBias', 'n\\_factors 2', '| users | 3 |', '5, from 1 to 5', '0.9876', '## Limits',
                  'poor list', '**Who rated what is in this folder**'):
        assert words in card
    assert not any(name in card for name in (*rec.users[1:], '#na#'))
    assert is_own_card(card.encode()) and Recommender.load(folder).users == rec.users
    # without ratings, for a model that holds none
    bare = Recommender(rec.model, rec.classes).save(tmp_path/'bare')
    card = (bare/'README.md').read_text()
    for words in ('not said', 'unknown', 'not measured', 'Who rated what is not in this folder'):
        assert words in card
    # a model that holds who rated what holds it without the ratings, too
    held = SVDpp(4, 4, 1, R, rec.rated.pairs)
    card = model_card(Recommender(held, rec.classes))
    assert '**Who rated what is in this folder**' in card
    assert 'They are no ratings' in model_card(tiny(Popularity(4, 4, rec.rated.pairs)))
    for bad in (float('nan'), 'low', True, None):
        with pytest.raises(DataError, match="'RMSE' is"): rec.save(tmp_path/'no', errors={'RMSE': bad})
    assert not (tmp_path/'no').exists()


def test_card_files_are_named_and_never_read(tmp_path):
    rec = tiny(); folder = rec.save(tmp_path/'r')
    (folder/'README.md').unlink()
    Recommender.load(folder)                                    # no card is needed
    os.mkfifo(folder/'README.md')                               # who reads this waits for ever
    (folder/'LICENSE').symlink_to(tmp_path/'nowhere')
    (folder/'.gitattributes').write_bytes(b'\xff\x00')
    (folder/'.cache'/'huggingface').mkdir(parents=True)
    again = Recommender.load(folder)
    assert np.array_equal(again.predict([('a', 'x')]), rec.predict([('a', 'x')]))
    for name in ('readme.md', 'README.md.py', 'setup.py', 'model.pkl'):
        (folder/name).touch()
        with pytest.raises(BadFolder, match='the folder should hold'): Recommender.load(folder)
        (folder/name).unlink()


def test_what_others_added_is_not_overwritten(tmp_path):
    rec = tiny(); folder = rec.save(tmp_path/'r')
    rec.save(folder, data='more')                               # its own card is replaced
    card = (folder/'README.md').read_bytes()
    for name, words in (('.gitattributes', '.gitattributes'), ('LICENSE', 'LICENSE')):
        (folder/name).write_text('mine')
        with pytest.raises(FileExistsError, match=f'something else than a saved recommender, {words}'):
            rec.save(folder)
        assert (folder/name).read_text() == 'mine'
        (folder/name).unlink()
    for edited in (card + b'mine', card.replace(b'more', b'less'), b'mine', b'', b'\xff', card[:-1]):
        (folder/'README.md').write_bytes(edited)
        assert not is_own_card(edited)
        with pytest.raises(FileExistsError, match='an edited README.md'): rec.save(folder)
        assert (folder/'README.md').read_bytes() == edited
    (folder/'README.md').unlink(); os.mkfifo(folder/'README.md')
    with pytest.raises(FileExistsError, match='an edited README.md'): rec.save(folder)
    (folder/'README.md').unlink(); rec.save(folder)             # one without a card is replaced, too
    assert is_own_card((folder/'README.md').read_bytes())


def test_the_card_of_the_command(saved):
    card = (saved/'numbers'/'README.md').read_text()
    assert '| data | numbers.csv |' in card and 'RMSE of always the mean, on ' in card
    assert str(saved) not in card


# A model that says how sure it is

@saveable
class Believer(Module):
    """Items are given, people are solved for: a linear model with normal noise, which says how sure it is.

    Of an item that few rated, less is known"""
    def __init__(self, n_users:int, n_items:int, n_factors:int=2, rating_noise:float=.7):
        store_attr('n_users,n_items,n_factors,rating_noise')
        g, d = torch.Generator().manual_seed(0), n_factors + 1
        self.register_buffer('item_factors', torch.randn(n_items, n_factors, generator=g))
        self.register_buffer('item_biases', 3 + .3*torch.randn(n_items, generator=g))
        self.register_buffer('item_variance', torch.ones(n_items))
        self.register_buffer('user_factors', torch.zeros(n_users, n_factors))
        self.register_buffer('user_biases', torch.zeros(n_users))
        self.register_buffer('covariances', torch.eye(d).repeat(n_users, 1, 1))

    def learn(self, rated):
        self.item_variance = 1/(1 + rated.counts().float())
        for u in range(self.n_users):
            rows = slice(*rated.start[u:u + 2])
            mean, self.covariances[u] = self.fold_in(rated.items[rows].long(), rated.ratings[rows])
            self.user_factors[u], self.user_biases[u] = mean[:-1], mean[-1]
        return self

    def fold_in(self, items, ratings):
        y = F.pad(self.item_factors[items], (0, 1), value=1.).double()
        covariance = torch.linalg.inv(torch.eye(y.shape[1]).double() + y.T @ y/self.rating_noise**2)
        above = y.T @ (ratings.double() - self.item_biases[items])
        return covariance @ above/self.rating_noise**2, covariance

    def forward(self, x):
        u, i = x[:, 0], x[:, 1]
        return (self.user_factors[u]*self.item_factors[i]).sum(1) + self.user_biases[u] + self.item_biases[i]

    def uncertainty(self, x):
        y = F.pad(self.item_factors[x[:, 1]], (0, 1), value=1.)
        of_user = torch.einsum('nd,nde,ne->n', y, self.covariances[x[:, 0]], y)
        return (of_user + self.item_variance[x[:, 1]] + self.rating_noise**2).sqrt()


def believer(n_users=13, n_items=31, n_ratings=150, model=Believer):
    "A recommender with such a model"
    g = torch.Generator().manual_seed(1)
    x = torch.stack([torch.randint(1, n, (n_ratings,), generator=g) for n in (n_users, n_items)], dim=1)
    y = torch.randint(1, 6, (n_ratings,), generator=g).float()
    rated = History(x, n_users, n_items, y)
    users, items = [f'u{k}' for k in range(n_users)], [f'film {k}' for k in range(n_items)]
    users[0] = items[0] = '#na#'
    return Recommender(model(n_users, n_items).learn(rated), dict(user=users, title=items), rated)


def test_lists_of_a_model_that_says_how_sure_it_is():
    rec = believer()
    u, i = torch.arange(1, 13)[:, None], torch.arange(1, 31)
    mean, sd = (pd.DataFrame(f(rec.model, u, i).numpy(), rec.users[1:], rec.items[1:])
                for f in (score, uncertainty))
    every = rec.recommend(None, 99, exclude_seen=False)
    assert list(every) == ['user', 'title', 'predicted', 'sd'] and len(every) == 360
    for by in ('mean', 'sure', 'curious'):
        got = rec.recommend(None, 99, exclude_seen=False, by=by)
        for user, of_user in got.groupby('user', sort=False):
            assert np.allclose(of_user.predicted, mean.loc[user, of_user.title], atol=1e-5)
            assert np.allclose(of_user.sd, sd.loc[user, of_user.title], atol=1e-5)
    for user in ('u1', 'u7'):
        for n_sd in (0, 1., 3):
            got = rec.recommend(user, 5, exclude_seen=False, by='sure', n_sd=n_sd)
            want = (mean - n_sd*sd).loc[user].sort_values(ascending=False)
            assert got.title.tolist() == want.index[:5].tolist()
        seen = {rec.items[k] for k in rec.rated.items[slice(*rec.rated.start[int(user[1:]):][:2])].tolist()}
        for by in ('sure', 'curious'):
            assert set(rec.recommend(user, 99, by=by).title) == set(rec.items[1:]) - seen
    some = ['film 3', 'film 9', 'film 4']
    assert sorted(rec.recommend('u1', 9, False, some, by='curious').title) == sorted(some)
    pairs = [('u1', 'film 3'), ('u2', 'film 9')]
    assert np.allclose(rec.uncertainty(pairs), [sd.loc[p] for p in pairs], atol=1e-6)
    assert len(rec.recommend([], 3, by='curious')) == 0


@saveable
class Cut(Believer):
    "Predictions are cut to the range of ratings"
    rating_range = 1, 3
    def forward(self, x): return super().forward(x).clamp(1, 3)


def test_predictions_that_are_cut_to_the_range_of_ratings():
    """Many films reach the top of the range: their order is that of what stands before, for known users and
    for new ones"""
    rec = believer(model=Cut)
    assert rec._dot.limits == (1, 3)
    rows = slice(*rec.rated.start[5:7])
    old = {rec.items[i]: float(r) for i, r in zip(rec.rated.items[rows].tolist(), rec.rated.ratings[rows])}
    x = torch.stack([torch.full((30,), 5), torch.arange(1, 31)], dim=1)
    linear = Believer.forward(rec.model, x)
    want = pd.Series(linear.numpy(), rec.items[1:]).drop(list(old)).sort_values(ascending=False)
    assert (want > 3).sum() > 3
    for got in (rec.recommend('u5', 99), rec.recommend_new(old, 99)):
        assert got.title.tolist() == want.index.tolist()
        assert np.allclose(got.predicted, want.clip(1, 3), atol=1e-4)
    assert np.allclose(rec.predict_new(old), linear.clamp(1, 3), atol=1e-4)


def test_draws_depend_on_seed_and_person_alone():
    rec = believer()
    def titles(user, seed, **kwargs): return rec.recommend(user, 9, by='curious', seed=seed, **kwargs)
    one = titles('u5', 0)
    assert one.equals(titles('u5', 0)) and not one.equals(titles('u5', 1))
    several = titles(['u2', 'u5', 'u9'], 0)
    assert several[several.user == 'u5'].title.tolist() == one.title.tolist()
    fewer = titles('u5', 0, items=one.title.tolist()[3:])                   # others do not change the draw
    assert fewer.title.tolist() == one.title.tolist()[3:]
    state = torch.get_rng_state()
    titles(None, 3)
    assert torch.equal(state, torch.get_rng_state())
    # in small blocks as in one
    users = torch.arange(1, 13)
    a, b = (list(rec.recommend_blocks(users, 5, by='curious', block=block)) for block in (1, 2**24))
    assert len(a) == 12 and len(b) == 1 and torch.equal(torch.cat([items for _, items, _ in a]), b[0][1])


def test_draws_scatter_as_the_model_says():
    rec = believer()
    users, cand = torch.tensor([1, 2]), torch.arange(1, 31)
    draws = torch.stack([rec._order(users, cand, 'curious', 1., seed) for seed in range(3000)])
    mean, sd = score(rec.model, users[:, None], cand), uncertainty(rec.model, users[:, None], cand)
    known = (sd**2 - rec.model.rating_noise**2).sqrt()
    assert torch.allclose(draws.mean(0).float(), mean, atol=.1)
    assert torch.allclose(draws.std(0).float(), known, rtol=.08)
    # what a person likes is drawn once for all items, so that draws of like items go together
    y = rec._vectors(cand)
    want = y @ rec.model.covariances[1].double() @ y.T + rec.model.item_variance[cand].diag()
    assert torch.allclose(torch.cov(draws[:, 0].T), want, atol=.12)


def test_somebody_new_of_a_model_that_says_how_sure_it_is():
    rec = believer()
    u = 5
    rows = slice(*rec.rated.start[u:u + 2])
    old = {rec.items[i]: float(r) for i, r in zip(rec.rated.items[rows].tolist(), rec.rated.ratings[rows])}
    factors_, bias = rec.fold_in(old)
    assert np.allclose(factors_, rec.model.user_factors[u], atol=1e-5)
    assert np.isclose(bias, rec.model.user_biases[u], atol=1e-5)
    for by in ('mean', 'sure', 'curious'):
        got = rec.recommend_new(old, 99, by=by)
        assert list(got) == ['title', 'predicted', 'sd'] and len(got) == 30 - len(old)
    # like the user whose ratings these are
    new, known = rec.recommend_new(old, 9, by='sure'), rec.recommend('u5', 9, by='sure')
    assert new.title.tolist() == known.title.tolist()
    assert np.allclose(new[['predicted', 'sd']], known[['predicted', 'sd']], atol=1e-4)
    assert rec.recommend_new(old, 9, by='curious').equals(rec.recommend_new(old, 9, by='curious'))
    other = rec.recommend_new(old, 9, by='curious', seed=1)
    assert not rec.recommend_new(old, 9, by='curious').equals(other)
    # nothing rated: by the mean what is popular, else what the model says of anybody
    assert rec.recommend_new({}, 3).title.tolist() == rec._popular_list(torch.arange(1, 31), 3).title.tolist()
    curious = [rec.recommend_new({}, 3, by='curious', seed=seed).title.tolist() for seed in range(4)]
    assert len(set(map(tuple, curious))) > 1 and list(rec.recommend_new({}, 3, by='sure'))[-1] == 'sd'
    with pytest.raises(NotInModel, match='no labels of users'): rec.recommend_new(old, labels={'age': 3})


def test_the_next_question():
    rec = believer()
    said = {'film 3': 5., 'film 8': 2.}
    got = rec.next_question(said, 99, if_seen=True)
    assert list(got) == ['title', 'narrows', 'n_ratings'] and len(got) == 28
    assert not set(said) & set(got.title)
    assert got.narrows.is_monotonic_decreasing and got.narrows.between(0, 1).all()
    # against folding in, for items of which all is known
    rec.model.item_variance[:] = 0
    rec = Recommender(rec.model, rec.classes, rec.rated)
    everything = rec._vectors(torch.arange(1, 31))
    def unknown(ratings):
        _, covariance = rec._fold(*rec._new_ratings(ratings))
        return torch.einsum('cd,de,ce->', everything, covariance, everything).item()
    got = rec.next_question(said, 99, if_seen=True)
    for title, narrows in zip(got.title, got.narrows):
        assert np.isclose(1 - unknown(said | {title: 1.})/unknown(said), narrows, atol=1e-9)
    # seen by few: asked late
    counts = rec.rated.counts()[1:]
    got = rec.next_question(said, 99)
    product = got.narrows*got.n_ratings
    assert product.is_monotonic_decreasing and (got.n_ratings > 0).any()
    assert got.n_ratings.tolist() == [int(counts[int(t.split()[1]) - 1]) for t in got.title]
    first = rec.next_question(said).title[0]
    assert first == got.title[0] and rec.next_question(said, asked=[first]).title[0] == got.title[1]
    assert rec.next_question(said, items=[got.title[5], got.title[9]]).title.tolist() == [got.title[5]]
    assert len(rec.next_question(dict.fromkeys(rec.items[1:], 3.))) == 0      # all is said
    bare = Recommender(rec.model, rec.classes)                  # without ratings: as if all were seen
    assert bare.next_question(said).n_ratings.tolist() == [0]


def test_unusable_orders():
    for model in (None, CollabNN((4, 2), (4, 2), R, 3), Popularity(4, 4, tiny().rated.pairs)):
        rec = tiny(model); name = type(rec.model).__name__
        assert 'sd' not in rec.recommend('a') and 'sd' not in rec.recommend(None)
        for ask in (lambda by: rec.recommend('a', by=by), lambda by: rec.recommend_new({'x': 3.}, by=by),
                    lambda by: list(rec.recommend_blocks(by=by))):
            for by in ('sure', 'curious'):
                words = f"{name} does not say how sure it is of a rating, which a list by '{by}' needs"
                with pytest.raises(NotInModel, match=words): ask(by)
            words = "by must be 'mean' or 'sure' or 'curious', not 'best'"
            with pytest.raises(DataError, match=words): ask('best')
        with pytest.raises(NotInModel, match='which a question needs'): rec.next_question({'x': 3.})
        with pytest.raises(NotInModel, match='does not say how sure'): rec.uncertainty(('a', 'x'))
    rec = believer()
    for wrong in (dict(n_sd=-1), dict(n_sd='2'), dict(n_sd=float('nan')), dict(n_sd=True), dict(seed=-1),
                  dict(seed=.5), dict(seed=None)):
        for ask in (partial(rec.recommend, 'u1'), partial(rec.recommend_new, {'film 3': 3.})):
            with pytest.raises(DataError, match=f'{[*wrong][0]} must be'): ask(by='sure', **wrong)
    with pytest.raises(UnknownName, match='no user is called'): rec.recommend('u99', by='sure')
    with pytest.raises(UnknownName): rec.next_question({'film 99': 3.})
    with pytest.raises(DataError, match='n must be'): rec.next_question(n=0)
    bare = Recommender(rec.model, rec.classes)
    assert len(bare.recommend('u1', 3, False, by='sure')) == 3
    with pytest.raises(DataError, match='it is unknown who rated what'):
        bare.recommend('u1', 3, False, by='curious')


def seventh(n_factors=4, n_sweeps=10, **kwargs):
    dls = checkerboard(**kwargs)
    model = BayesianMF.from_dls(dls, n_factors).fit(dls, n_sweeps)
    return Recommender.from_learner(Learner(dls, model, loss_func=mse_flat))


def test_the_seventh_model_in_a_recommender(tmp_path):
    rec = seventh()
    assert rec._dot is not None and rec._dot.limits == (1, 5)
    again = Recommender.load(rec.save(tmp_path/'r'))
    for by in ('mean', 'sure', 'curious'):
        got = rec.recommend(None, 5, by=by)
        assert list(got)[-2:] == ['predicted', 'sd'] and got.equals(again.recommend(None, 5, by=by))
        assert got.predicted.between(1, 5).all() and (got.sd > 0).all()
        new = rec.recommend_new({1: 5, 2: 1, 3: 5}, 9, by=by)
        assert new.equals(again.recommend_new({1: 5, 2: 1, 3: 5}, 9, by=by))
    new = rec.recommend_new({1: 5, 2: 1, 3: 5, 4: 1}, 5)
    assert new['item'].mod(2).eq(1).all()                                     # somebody likes odd numbers
    question = rec.next_question({1: 5}, 3)
    assert question.narrows.between(0, 1).all() and 1 not in question['item'].tolist()
    # what is not known of the items is what their distributions say
    users = torch.arange(1, 21)
    y = F.pad(rec.model.users.mean[users, :-1], (0, 1), value=1.).double()
    cov, own = rec.model.items.cov.double(), rec.model.users.cov[users].double()
    want = torch.einsum('ud,ide,ue->ui', y, cov, y)
    want += torch.einsum('ude,ide->ui', own[:, :-1, :-1], cov[:, :-1, :-1])
    assert torch.allclose(rec._item_variance[1:], want.mean(0)[1:], rtol=.2, atol=1e-3)


def test_lists_for_everybody_are_those_of_pair_by_pair():
    rec = seventh()
    users, items = torch.arange(1, 21), torch.arange(1, 21)
    want = uncertainty(rec.model, users[:, None], items)
    assert torch.allclose(uncertainty_grid(rec.model, users, items), want, atol=1e-5)
    assert uncertainty_grid(rec.model, users[:0], items).shape == (0, 20)
    careful = score(rec.model, users[:, None], items) - 2*want
    for by in ('sure', 'curious'):
        lists = rec.recommend(None, 6, exclude_seen=False, by=by, n_sd=2.).groupby('user')
        for user, shown in lists:
            alone = rec.recommend(user, 6, exclude_seen=False, by=by, n_sd=2.)
            assert alone['item'].tolist() == shown['item'].tolist()
            assert np.allclose(shown.sd, rec.uncertainty([(user, item) for item in shown['item']]), atol=1e-5)
            if by == 'curious': continue
            best = careful[rec.users.index(user) - 1].topk(6).indices
            assert shown['item'].tolist() == [rec.items[k + 1] for k in best]


def test_a_model_with_its_own_uncertainty_is_asked_for_it():
    class Surer(BayesianMF):
        def uncertainty(self, x): return torch.full((len(x),), .25)
    rec = seventh()
    rec.model.__class__ = Surer
    assert (uncertainty_grid(rec.model, torch.arange(3), torch.arange(4)) == .25).all()


def test_the_seventh_model_takes_in_what_came_later():
    rec = seventh()
    new = later(*[(99, i, 5 if i % 2 else 1) for i in range(1, 9)], (3, 77, 4))
    more = rec.update(new)
    assert more.users[-1] == 99 and more.items[-1] == 77 and sizes(more.model) == (22, 22)
    assert len(rec.users) == 21 and not more.model.training
    left = more.recommend(99, 12)
    assert left['item'][:5].mod(2).eq(1).all() and left.sd.gt(0).all()
    assert np.array_equal(more.predict((99, 9)), rec.update(new).predict((99, 9)))
    with pytest.raises(NotInModel, match='Believer cannot be trained on: make it anew'):
        believer().update(pd.DataFrame(dict(user=['u1'], title=['film 1'], rating=[3])))


def test_orders_of_the_command(tmp_path, capsys):
    rec = believer(); folder = rec.save(tmp_path/'r')
    for by, seed in (('mean', 0), ('sure', 0), ('curious', 0), ('curious', 5)):
        by_seed = ['--by', by, '--seed', seed]
        got = json.loads(out_of(capsys, 'recommend', folder, '--user', 'u5', *by_seed, '--json'))['items']
        want = rec.recommend('u5', by=by, seed=seed)
        assert [r['item'] for r in got] == want.title.tolist()
        assert np.allclose([r['sd'] for r in got], want.sd, atol=1e-4)
        new = out_of(capsys, 'recommend', folder, '--rated', 'film 3=5', *by_seed, '--json')
        got = json.loads(new)['items']
        assert [r['item'] for r in got] == rec.recommend_new({'film 3': 5}, by=by, seed=seed).title.tolist()
    said = out_of(capsys, 'recommend', folder, '--user', 'u5', '--by', 'sure', '-n', 2).splitlines()
    top = rec.recommend('u5', 2, by='sure').iloc[0]
    assert said[0] == 'predicted    sd  item' and len(said) == 3
    assert said[1] == f'{top.predicted:9.2f} ±{top.sd:4.2f}  {top.title}'
    lists = tmp_path/'lists.csv'
    out_of(capsys, 'recommend', folder, '--all', '--out', lists, '--by', 'curious', '--seed', 3)
    assert pd.read_csv(lists).title.tolist() == rec.recommend(None, by='curious', seed=3).title.tolist()
    assert 'popular' not in out_of(capsys, 'recommend', folder, '--by', 'curious')
    got = json.loads(out_of(capsys, 'predict', folder, '--user', 'u5', '--item', 'film 3', '--json'))['items']
    assert np.isclose(got[0]['sd'], rec.uncertainty(('u5', 'film 3'))[0], atol=1e-4)
    assert '±' in out_of(capsys, 'predict', folder, '--user', 'u5', '--item', 'film 3')


def test_orders_that_the_command_does_not_have(saved, capsys):
    err = out_of(capsys, 'recommend', saved/'numbers', '--user', 7, '--by', 'sure', status=2)
    assert 'DotProductBias does not say how sure it is' in err
    assert 'invalid choice' in out_of(capsys, 'recommend', saved/'numbers', '--by', 'luck', status=2)
    assert 'whole number' in out_of(capsys, 'recommend', saved/'numbers', '--seed', '-1', status=2)
