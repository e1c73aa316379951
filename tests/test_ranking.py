"Ranking: measures against textbooks, loops and other libraries; splits without leaks; models made to rank."
import copy as copying, io, pickle, warnings
from dataclasses import replace

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from collab_course.errors import DataError
from collab_course.dot_product import DotProduct, DotProductBias
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.training import recipes
from collab_course.history import *
from collab_course.evaluation import *
from collab_course.ranking import *
from collab_course.recommendation import PoorListWarning, Recommender
from collab_course.data import read_interactions

INF = float('inf')


# The measures

def loop(hits, n):
    "The measures of one user by the book"
    k = len(hits)
    if n == 0: return dict.fromkeys(ranking_measures, float('nan'))
    return {
        'nDCG': sum(h / np.log2(r + 2) for r, h in enumerate(hits))
        / sum(1 / np.log2(r + 2) for r in range(min(k, n))),
        'MAP': sum(sum(hits[: r + 1]) / (r + 1) for r in range(k) if hits[r]) / n,
        'precision': sum(hits) / k,
        'recall': sum(hits) / n,
        'MRR': max([1 / (r + 1) for r in range(k) if hits[r]], default=0.0),
        'hit rate': float(any(hits)),
    }


@pytest.fixture
def lists():
    """Random scores and relevance of 200 users and 60 items; some users without a relevant item → relevant,
    scores, hits at 10, number of relevant"""
    rng = np.random.default_rng(0)
    relevant = rng.random((200, 60)) < rng.choice([0., .02, .1, .4], size=(200, 1))
    scores = torch.tensor(rng.random((200, 60)))
    assert 10 < (~relevant.any(1)).sum() < 150 and relevant.sum(1).max() > 10
    return (
        relevant,
        scores,
        torch.tensor(relevant).gather(1, scores.argsort(1, descending=True)[:, :10]),
        torch.tensor(relevant.sum(1)),
    )


@pytest.mark.parametrize('name', ranking_measures)
def test_measures_against_a_loop(lists, name):
    _, _, hits, n = lists
    got = ranking_measures[name](hits, n)
    want = [loop(h, m)[name] for h, m in zip(hits.int().tolist(), n.tolist())]
    assert got.shape == (200,) and np.allclose(got, want, atol=1e-6, equal_nan=True)
    # no test items: no number
    assert torch.equal(got.isnan(), n == 0)


@pytest.mark.parametrize(
    'hits, n, want',
    [
        ([1, 0, 1, 0], 3, dict(nDCG=0.70392, MAP=5 / 9, precision=0.5, recall=2 / 3, MRR=1)),
        ([0, 0, 0, 1], 1, dict(nDCG=np.log(2) / np.log(5), MAP=0.25, precision=0.25, recall=1, MRR=0.25)),
        (
            [1, 0, 1, 0, 0, 1, 0, 0, 1, 1],
            5,
            dict(MAP=(1 + 2 / 3 + 3 / 6 + 4 / 9 + 5 / 10) / 5, precision=0.5, recall=1),
        ),  # the example of many lectures on MAP: 0.62
        (
            [0, 1, 0, 0, 1, 0, 1, 0, 0, 0],
            3,
            dict(MAP=(1 / 2 + 2 / 5 + 3 / 7) / 3, MRR=0.5),
        ),  # and its second query: 0.44
        ([1, 1], 9, dict(nDCG=1, MAP=2 / 9, precision=1, recall=2 / 9, MRR=1)),
        ([0, 0], 4, dict(nDCG=0, MAP=0, precision=0, recall=0, MRR=0)),
    ],
)
def test_worked_examples(hits, n, want):
    for name, value in want.items():
        assert ranking_measures[name]([hits], [n]).item() == pytest.approx(value, abs=1e-5), name
    assert ranking_measures['hit rate']([hits], [n]).item() == float(any(hits))


def test_graded_gains():
    gains = torch.tensor([3., 2, 3, 0, 1, 2])
    assert dcg(gains).item() == pytest.approx(6.861, abs=1e-3) and (
        dcg(gains) / dcg(gains.sort(descending=True).values)
    ).item() == pytest.approx(0.961, abs=1e-3)


def test_measures_against_sklearn(lists):
    metrics = pytest.importorskip('sklearn.metrics')
    relevant, scores, hits, n = lists
    some = relevant.any(1)
    assert ndcg_at_k(hits, n).nanmean().item() == pytest.approx(
        metrics.ndcg_score(relevant[some], scores[some], k=10), abs=1e-6
    )
    everything = torch.tensor(relevant).gather(1, scores.argsort(1, descending=True))
    want = [metrics.average_precision_score(r, s) for r, s in zip(relevant[some], scores[some])]
    assert np.allclose(average_precision_at_k(everything, n)[some], want, atol=1e-6)
    gains = torch.rand(5, 8)
    order = torch.rand(5, 8).argsort(1)
    ours = dcg(gains.gather(1, order))/dcg(gains.sort(1, descending=True).values)
    assert ours.mean().item() == pytest.approx(
        metrics.ndcg_score(gains, -order.argsort(1).double()), abs=1e-6
    )


def test_every_measure_against_sklearn(lists):
    """What scikit-learn calls otherwise: with one relevant item each, label ranking average precision is
    1/place and top-k accuracy the hit rate; precision and recall of a list are those of a classifier that
    says yes to it"""
    metrics = pytest.importorskip('sklearn.metrics')
    relevant, scores, hits, n = lists
    best = scores.argsort(1, descending=True)
    said = torch.zeros(200, 60, dtype=torch.bool).scatter_(1, best[:, :10], True).numpy()
    some = np.flatnonzero(relevant.any(1))
    assert np.allclose(
        precision_at_k(hits, n)[some],
        [metrics.precision_score(relevant[u], said[u]) for u in some],
        atol=1e-6,
    )
    assert np.allclose(
        recall_at_k(hits, n)[some], [metrics.recall_score(relevant[u], said[u]) for u in some], atol=1e-6
    )
    # one relevant item each
    one = np.random.default_rng(1).integers(0, 60, 200)
    y, ones = np.eye(60)[one], torch.ones(200)
    everything = torch.tensor(y).gather(1, best)
    assert np.allclose(
        reciprocal_rank_at_k(everything, ones),
        [metrics.label_ranking_average_precision_score(y[u : u + 1], scores[u : u + 1]) for u in range(200)],
        atol=1e-6,
    )
    assert reciprocal_rank_at_k(everything, ones).mean().item() == pytest.approx(
        metrics.label_ranking_average_precision_score(y, scores), abs=1e-6
    )
    for k in (1, 10):
        assert hit_at_k(everything[:, :k], ones).mean().item() == pytest.approx(
            metrics.top_k_accuracy_score(one, scores, k=k, labels=range(60)), abs=1e-6
        )
    # cut at 10, both define the same average precision where all that is relevant stands in the first ten,
    # or the rest of it is never found
    few = torch.zeros(200, 60).scatter_(
        1, best[:, :10], torch.tensor(np.random.default_rng(2).integers(0, 2, (200, 10))).float()
    )
    few[:, 0] = torch.maximum(few[:, 0], (~few.bool().any(1)).float())
    inside = [u for u in range(200) if few[u].gather(0, best[u, :10]).sum() == few[u].sum()]
    assert len(inside) > 150
    got = average_precision_at_k(few.gather(1, best[:, :10]), few.sum(1))
    assert np.allclose(
        got[inside], [metrics.average_precision_score(few[u], scores[u]) for u in inside], atol=1e-6
    )
    # three more that no list of ten has: divided by all
    extra = average_precision_at_k(few.gather(1, best[:, :10]), few.sum(1) + 3)
    assert np.allclose(
        extra[inside],
        [
            metrics.average_precision_score(few[u], scores[u]) * few[u].sum() / (few[u].sum() + 3)
            for u in inside
        ],
        atol=1e-6,
    )


def test_measures_against_ranx(lists):
    "An extra, where ranx is installed; the test above covers the same measures"
    ranx = pytest.importorskip('ranx')
    relevant, scores, hits, n = lists
    users = [u for u in range(200) if relevant[u].any()]
    qrels = ranx.Qrels({str(u): {str(i): 1 for i in np.flatnonzero(relevant[u])} for u in users})
    run = ranx.Run({str(u): {str(i): float(scores[u, i]) for i in range(60)} for u in users})
    names = {
        'nDCG': 'ndcg@10',
        'MAP': 'map@10',
        'precision': 'precision@10',
        'recall': 'recall@10',
        'MRR': 'mrr@10',
        'hit rate': 'hit_rate@10',
    }
    theirs = ranx.evaluate(qrels, run, list(names.values()))
    for ours, name in names.items():
        assert ranking_measures[ours](hits, n).nanmean().item() == pytest.approx(theirs[name], abs=1e-6), ours


def test_rating_errors():
    metrics = pytest.importorskip('sklearn.metrics')
    pred, targ = torch.randn(50, 1), torch.randn(50)
    got = rating_errors(pred, targ)
    assert got['RMSE'] == pytest.approx(metrics.mean_squared_error(targ, pred) ** 0.5, abs=1e-6) and got[
        'MAE'
    ] == pytest.approx(metrics.mean_absolute_error(targ, pred), abs=1e-6)
    for bad, words in (
        ((pred, targ[1:]), '50 and 49'),
        (([], []), 'at least one'),
        (([1.0], [INF]), 'finite'),
    ):
        with pytest.raises(ValueError, match=words): rating_errors(*bad)


def test_unusable_hits():
    with pytest.raises(ValueError, match='more hits than relevant'): ndcg_at_k([[1, 1]], [1])
    with pytest.raises(ValueError, match=r'not \(2,\) and'): recall_at_k([1, 1], [1])
    for f in ranking_measures.values():
        with pytest.raises(ValueError, match='at least one place'): f(torch.zeros(3, 0), [1, 1, 1])
    with pytest.raises(ValueError, match='at least one item must be a candidate, not 0'):
        coverage(torch.tensor([[1]]), 0)


def test_coverage_and_novelty():
    ranked = torch.tensor([[1, 2], [2, 3], [2, 0]])
    assert coverage(ranked, 6) == 0.5 and novelty(ranked, torch.tensor([9, 1, 4, 2, 0]), 4) == pytest.approx(
        (2 + 0 + 0 + 1 + 0) / 5
    )
    # nobody has it: as if one had
    assert novelty(torch.tensor([[4]]), torch.tensor([9, 1, 4, 2, 0]), 4) == 2.


# Lists and ties

@pytest.mark.parametrize(
    'values',
    [
        lambda g: torch.randint(-2, 3, (60, 40), generator=g).float(),
        lambda g: torch.randn(60, 40, generator=g),
        lambda g: 1e30 * torch.randn(60, 40, generator=g),
        lambda g: torch.zeros(60, 40),
        lambda g: torch.randint(-2, 3, (60, 40), generator=g) * -0.0,
    ],
)
@pytest.mark.parametrize('k', [1, 7, 39])
def test_top_k_is_a_stable_sort(values, k):
    scores = values(torch.Generator().manual_seed(0))
    want = scores[:, 1:].sort(dim=1, descending=True, stable=True).indices[:, :k] + 1
    assert torch.equal(top_k(scores, k), want)


def test_top_k_at_the_edges():
    # `#na#` and -inf never; the rest of the list is empty
    assert top_k(torch.tensor([[5., 1, -INF, 2]]), 5).tolist() == [[3, 1, 0, 0, 0]]
    assert top_k(torch.full((2, 3), -INF), 2).tolist() == [[0, 0], [0, 0]]
    assert top_k(torch.tensor([[0.0, INF, 1.0]]), 2).tolist() == [[1, 2]] and top_k(
        torch.empty(0, 4), 2
    ).shape == (0, 2)
    with pytest.raises(ValueError, match='1 scores are NaN'): top_k(torch.tensor([[0., float('nan')]]), 1)
    with pytest.raises(ValueError, match='at least one place'): top_k(torch.zeros(1, 3), 0)
    with pytest.raises(ValueError, match=r'not \(3,\)'): top_k(torch.zeros(3), 1)


# Splits

SPLITS = {
    'random': random_split,
    'user': user_split,
    'item': item_split,
    'last': leave_one_out,
    'time': time_split,
}


@pytest.fixture(scope='module')
def table():
    "500 rows, many of the same time, some users and items with a single row"
    rng = np.random.default_rng(1)
    pairs = rng.permutation(40*60)[:500]
    return (
        pd.DataFrame(
            dict(
                user=pairs // 60, item=(pairs % 60) ** 2 // 60, rating=1.0, timestamp=rng.integers(0, 50, 500)
            )
        )
        .drop_duplicates(['user', 'item'])
        .reset_index(drop=True)
    )


@pytest.mark.parametrize('name', SPLITS)
def test_no_leaks(table, name):
    train, valid = SPLITS[name](table)
    # every row once
    assert len(train) and len(valid) and sorted([*train, *valid]) == list(range(len(table)))
    assert (np.diff(train) > 0).all() and (np.diff(valid) > 0).all()
    report = split_report(table, train, valid, time='timestamp')
    assert not report.iloc[:4].any()
    again = SPLITS[name](table)
    # the same call, the same split
    assert np.array_equal(valid, again[1])
    dls = RatingsDataLoaders.from_df(table, valid_idx=valid, bs=32)
    assert len(dls.train_ds) == len(train) and len(dls.valid_ds) == len(valid)
    if name in ('random', 'user', 'item'): assert not np.array_equal(valid, SPLITS[name](table, seed=1)[1])


@pytest.mark.parametrize('split, col', [(user_split, 'user'), (item_split, 'item')])
@pytest.mark.parametrize('ratio', [.5, .75, .9])
def test_a_share_of_each_group(table, split, col, ratio):
    train, _ = split(table, ratio)
    n, k = table[col].value_counts(), table[col].iloc[train].value_counts()
    # Python rounds a half to the even number, too
    for g in n.index: assert k.get(g, 0) == round(ratio*n[g]), g
    if ratio > .5: assert set(k.index) == set(n.index)


def test_the_item_split_of_ml_100k(ml):
    train, valid = item_split(ml.ratings)
    assert (len(train), len(valid)) == (75_066, 24_934) and not split_report(ml.ratings, train, valid)[
        'validation items without training rows'
    ]


def test_leave_one_out(table):
    train, valid = leave_one_out(table)
    assert table.user.iloc[valid].is_unique and set(table.user.iloc[valid]) == set(
        table.user[table.user.duplicated()]
    )
    last = table.groupby('user').timestamp.max()
    assert (table.timestamp.iloc[valid].to_numpy() == last[table.user.iloc[valid]].to_numpy()).all()
    # of ties the last row
    for r in valid:
        assert not (
            (table.user == table.user[r]) & (table.timestamp == table.timestamp[r]) & (table.index > r)
        ).any()
    one, two = (leave_one_out(table, time=None, seed=s)[1] for s in (0, 1))
    assert len(one) == len(two) == len(valid) and not np.array_equal(one, two)


def test_time_split(table):
    train, valid = time_split(table)
    assert table.timestamp.iloc[train].max() < table.timestamp.iloc[valid].min() and len(train) >= round(
        0.75 * len(table)
    )
    for n in (2, 3, 5, 10, 11):  # all times differ: as many rows as the rounded share
        assert len(time_split(pd.DataFrame(dict(user=1, item=range(n), timestamp=range(n))), 0.7)[0]) == min(
            max(round(0.7 * n), 1), n
        )
    dates = table.assign(timestamp=pd.to_datetime(table.timestamp, unit='D'))
    assert np.array_equal(time_split(dates)[1], valid) and np.array_equal(
        leave_one_out(dates)[1], leave_one_out(table)[1]
    )
    with pytest.raises(DataError, match='too many have the same time'): time_split(table.assign(timestamp=3))


def test_times_are_never_compared_as_text(table):
    days = pd.Timestamp('2012-11-20') + pd.to_timedelta(table.timestamp, 'D')
    train, valid = time_split(table)
    last = leave_one_out(table)[1]
    iso = days.dt.strftime('%Y-%m-%d')
    forms = (iso, iso.astype(object), iso.astype('category'), days.dt.date, days.dt.tz_localize('UTC'),
             days.dt.strftime('%Y%m%d'), days.dt.to_period('D'), table.timestamp.astype(object),
             table.timestamp.astype('category'))
    for when in forms:
        written = table.assign(timestamp=when)
        assert np.array_equal(time_split(written)[1], valid) and np.array_equal(
            leave_one_out(written)[1], last
        )
        report = split_report(written, train, valid, time='timestamp')
        assert report['training rows as late as the first validation row'] == 0
    american = days.dt.month.astype(str) + '/' + days.dt.day.astype(str) + '/' + days.dt.year.astype(str)
    some = iso.where(table.index != 7, 'soon')
    for when in (
        american,
        american.astype('category'),
        some,
        table.timestamp.astype(str),
        some.where(some != 'soon', ''),
    ):
        written = table.assign(timestamp=when)
        for refused in (time_split, leave_one_out, lambda t: split_report(t, train, valid, time='timestamp')):
            with pytest.raises(DataError, match='column .timestamp. holds text such as .*pd.to_datetime'):
                refused(written)


def test_a_report_sees_leaks(table):
    train, valid = random_split(table)
    bad = split_report(table, np.append(train, valid[:3]), valid)
    assert (
        bad['rows in both'] == 3
        and bad['rows used twice'] == 3
        and bad['validation pairs known in training'] == 3
    )
    assert split_report(table, train[1:], valid)['rows in neither'] == 1
    again = pd.concat([table, table.iloc[train[:4]]], ignore_index=True)
    assert (
        split_report(again, train, [*valid, *range(len(table), len(again))])[
            'validation pairs known in training'
        ]
        == 4
    )
    assert (
        split_report(table, train, valid, time='timestamp')[
            'training rows as late as the first validation row'
        ]
        > 100
    )


def test_unusable_splits(table):
    for ratio in (0, 1, 75):
        for split in (random_split, user_split, item_split, time_split):
            with pytest.raises(DataError, match='between 0 and 1'): split(table, ratio)
    with pytest.raises(DataError, match="no column 'when'"): time_split(table, time='when')
    with pytest.raises(DataError, match='1 of .* values are missing'):
        item_split(table.assign(item=table.item.where(table.index > 0)))
    for split in (random_split, user_split, leave_one_out, time_split):
        with pytest.raises(DataError, match='empty'): split(table[:0])
    with pytest.raises(
        DataError, match="no column 'timestamp'.*; time=None holds out a random row of each user"
    ):
        leave_one_out(table[['user', 'item']])
    train, valid = random_split(table)
    mask = np.isin(np.arange(len(table)), train)
    for a, b, words in (
        (mask, ~mask, 'np.flatnonzero'),
        (train.astype(float), valid, 'float64'),
        (train, [len(table)], 'row positions are from 0'),
        ([-1], valid, 'row positions are from 0'),
    ):
        with pytest.raises(DataError, match=words): split_report(table, a, b)
    # a single row at a half: none trains
    assert (
        split_report(table, train, [])['validation rows']
        == 0
        == user_split(pd.DataFrame(dict(user=[1], item=[2])), 0.5)[0].size
    )


# Interactions

def test_read_interactions(tmp_path):
    df = pd.DataFrame(dict(who=['b', 'a', 'b', 'b'], what=['x', 'x', 'y', 'x'], price=[1, 2, 3, 4]))
    df.to_csv(tmp_path/'t.csv', index=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for source in (df, tmp_path/'t.csv', io.StringIO(df.to_csv(index=False))):
            got = read_interactions(source)
            assert got.to_dict('list') == dict(
                user=['a', 'b', 'b'], item=['x', 'y', 'x'], n=[1, 1, 2], price=[2, 3, 4]
            )
        # the table given is left alone
        assert list(df) == ['who', 'what', 'price']
        two = read_interactions(pd.DataFrame(dict(a=[1, 1], b=[2, 2])))
        assert two.to_dict('list') == dict(user=[1], item=[2], n=[2])
        named = read_interactions(df.assign(rating=5), user='what', item='who')
        assert list(named) == ['user', 'item', 'n', 'price', 'rating'] and named.rating.tolist() == [5]*3


def test_a_log_is_split_before_it_is_read():
    log = pd.DataFrame(dict(user=[1, 1, 2], item=['a', 'a', 'b'], t=[1, 9, 2]))
    whole = read_interactions(log)
    # the last time, all rows
    assert whole.set_index('item').loc['a'].to_dict() == dict(user=1, n=2, t=9)
    train, _ = time_split(log, .67, time='t')
    early = read_interactions(log.iloc[train]).set_index('item')
    assert early.loc['a'].to_dict() == dict(user=1, n=1, t=1) and len(early) == 2


def test_unusable_interactions(tmp_path):
    df = pd.DataFrame(dict(who=['b', 'a'], what=['x', 'x']))
    for bad, kw, words in (
        (df[:0], {}, 'empty'),
        (df[['who']], {}, 'two columns'),
        (df, dict(item='thing'), "no column 'thing'"),
        (df, dict(user='who', item='who'), 'cannot be both'),
        (df.assign(what=['x', None]), {}, 'missing'),
    ):
        with pytest.raises(DataError, match=words): read_interactions(bad, **kw)
    with pytest.raises(FileNotFoundError): read_interactions(tmp_path/'nowhere.csv')


def test_histories():
    torch.manual_seed(0)
    pairs = torch.randint(0, 9, (60, 2))
    h = History(pairs, 9, 9)
    want = torch.zeros(9, 9)
    for u, i in pairs.tolist():
        if u and i: want[u, i] = 1
    assert (
        torch.equal(h(torch.arange(9)), want)
        and torch.equal(h(torch.tensor([3, 0, 3])), want[[3, 0, 3]])
        and h(torch.tensor([], dtype=torch.long)).shape == (0, 9)
    )
    assert torch.equal(h.lengths(), want.sum(1).long()) and torch.equal(h.counts(), want.sum(0).long())
    room = History.empty(len(h.items), 9, 9)
    room.load_state_dict(h.state_dict())
    assert torch.equal(room(torch.arange(9)), want) and not list(h.parameters())
    for bad, words in (
        (torch.zeros(3), 'integer indices'),
        (torch.tensor([[1, 9]]), 'user 1 and item 9'),
        (torch.tensor([[-1, 2]]), 'go up to'),
    ):
        with pytest.raises(DataError, match=words): History(bad, 9, 9)
    assert not History(torch.empty(0, 2, dtype=torch.long), 9, 9)(torch.arange(9)).any()


@pytest.fixture
def hdls(table):
    return HistoryDataLoaders.from_df(table[['user', 'item']], valid_idx=item_split(table)[1], seed=0, bs=16)


def test_loaders(table, hdls):
    train, valid = item_split(table)
    seen = [(u, y) for u, y in hdls.train]
    users = torch.cat([u for u, _ in seen])
    # each user once an epoch
    assert sorted(users.tolist()) == sorted(set(hdls.train_ds.x[:, 0].tolist()))
    got = torch.cat([torch.stack([u[r], i], 1) for u, y in seen for r, i in [y.nonzero(as_tuple=True)]])
    assert torch.equal(got.unique(dim=0), hdls.train_ds.x.unique(dim=0))
    again = HistoryDataLoaders.from_df(table[['user', 'item']], valid_idx=valid, seed=0, bs=16)
    assert torch.equal(torch.cat([u for u, _ in again.train]), users) and not torch.equal(
        torch.cat([u for u, _ in again.train]), users
    )
    assert sum(int(y.sum()) for _, y in hdls.valid) == len(valid)
    smaller = hdls.train.new(bs=7)
    assert (
        smaller.bs == 7 and sum(len(u) for u, _ in smaller) == len(users) and smaller.seed == hdls.train.seed
    )
    shown = hdls.show_batch(show=False, max_n=4)
    assert shown.shape == (4, 3) and list(shown) == ['user', 'items', 'such as']
    copy = pickle.loads(pickle.dumps(hdls))
    assert torch.equal(next(iter(copy.valid))[1], next(iter(hdls.valid))[1])
    with pytest.raises(NotImplementedError, match='rank_scores'): hdls.test_dl(table)
    with pytest.raises(DataError, match='two columns'): HistoryDataLoaders.from_df(table[['user']])
    few = HistoryDataLoaders.from_df(table, valid_idx=valid, n=10, bs=4)
    assert sum(int(y.sum()) for _, y in few.train) == 10


# The models

RANKERS = {
    'popularity': Popularity,
    'EASE': EASE,
    'EASE, paper': lambda u, i, pairs: EASE(u, i, pairs, 20.0, 0.0),
    'MultDAE': lambda u, i, pairs: MultDAE(u, i, 16, pairs),
}


@pytest.mark.parametrize('name', RANKERS)
def test_what_all_promise(hdls, name):
    torch.manual_seed(0)
    m = RANKERS[name](hdls.n_users, hdls.n_items, hdls.train_ds.x).train()
    state = {k: v.clone() for k, v in m.state_dict().items()}
    users, items = torch.arange(hdls.n_users), torch.arange(hdls.n_items)
    table = rank_scores(m, users)
    assert (
        table.shape == (hdls.n_users, hdls.n_items)
        and table.isfinite().all()
        and not table.requires_grad
        and m.training
    )
    assert torch.allclose(score(m, users[:, None], items), table, atol=1e-5) and torch.allclose(
        rank_scores(m, users[3:5]), table[3:5], atol=1e-5
    )
    assert all(torch.equal(v, state[k]) for k, v in m.state_dict().items())
    copy = rebuild(*kind_of(m))
    copy.load_state_dict(m.state_dict())
    assert torch.equal(rank_scores(copy, users), table)
    bounds = index_bounds(m)
    assert bounds == {'history.items': hdls.n_items, 'history.start': len(m.history.items) + 1}
    # and start reaches its bound
    for k, n in bounds.items(): assert 0 <= state[k].min() and state[k].max() < n
    assert state['history.start'].max() == bounds['history.start'] - 1
    assert torch.equal(rank_scores(pickle.loads(pickle.dumps(m)), users), table) and torch.equal(
        rank_scores(copying.deepcopy(m), users), table
    )
    for bad in ([hdls.n_users], [-1]):
        with pytest.raises(IndexError, match='from 0'): rank_scores(m, bad)
        with pytest.raises(IndexError): score(m, bad, 1)
    if name != 'MultDAE':
        for ask in (factors, biases):
            with pytest.raises(NotInModel): ask(m)


@pytest.mark.cuda
@pytest.mark.parametrize('name', RANKERS)
def test_on_cuda(hdls, name):
    m = RANKERS[name](hdls.n_users, hdls.n_items, hdls.train_ds.x)
    here = rank_scores(m, torch.arange(hdls.n_users))
    assert torch.allclose(rank_scores(m.cuda(), torch.arange(hdls.n_users)).cpu(), here, atol=1e-4)
    assert torch.allclose(score(m, [1, 2], [3, 4]).cpu(), here[[1, 2], [3, 4]], atol=1e-4)


@pytest.mark.parametrize('name', RANKERS)
def test_every_promise_of_the_interface(name):
    "Who rated what says nothing on a checkerboard, so no share has to be right"
    check_model(lambda d: RANKERS[name](d.n_users, d.n_items, d.train_ds.x), n_epoch=2, right=0)


@pytest.mark.parametrize('l2, power', [(1., 0.), (30., 0.), (5., .5), (5., 1.)])
def test_ease_is_a_regression_on_all_others(hdls, l2, power):
    m = EASE(hdls.n_users, hdls.n_items, hdls.train_ds.x, l2, power)
    X = History(hdls.train_ds.x, hdls.n_users, hdls.n_items)(torch.arange(hdls.n_users)).double()
    n = X.sum(0).clamp(min=1)
    ridge = l2*n**power/((X.sum(0)*n**power).sum()/X.sum())
    assert (ridge*X.sum(0)).sum()/X.sum() == pytest.approx(l2)
    for j in range(1, hdls.n_items):
        others = [i for i in range(hdls.n_items) if i != j]
        want = torch.linalg.solve(
            X[:, others].T @ X[:, others] + ridge[others].diag(), X[:, others].T @ X[:, j]
        )
        assert torch.allclose(m.weights[others, j].double(), want, atol=1e-5)
    assert not m.weights.diagonal().any()
    for bad in (dict(l2=0.), dict(power=-1.)):
        with pytest.raises(ValueError, match='must be'): EASE(4, 4, hdls.train_ds.x[:0], **bad)


def test_somebody_without_a_history_gets_what_is_popular(hdls):
    popular = Popularity(hdls.n_users, hdls.n_items, hdls.train_ds.x)
    assert torch.equal(
        top_k(rank_scores(EASE(hdls.n_users, hdls.n_items, hdls.train_ds.x), [0]), 5),
        top_k(rank_scores(popular, [0]), 5),
    )


@pytest.mark.parametrize('name', ['EASE', 'MultDAE'])
def test_two_tastes(name):
    """Two groups of users and of items; everybody has most of their group's. What is missing from it must be
    offered, before anything of the other's"""
    rows = pd.DataFrame(
        [(u, i) for u in range(30) for i in range(40) if u % 2 == i % 2], columns=['user', 'item']
    )
    _, valid = user_split(rows, .75)
    dls = HistoryDataLoaders.from_df(rows, valid_idx=valid, seed=0, bs=8)
    set_seed(0)
    m = RANKERS[name](dls.n_users, dls.n_items, dls.train_ds.x)
    if list(m.parameters()):
        learn = Learner(dls, m, loss_func=softmax_loss, metrics=AtK(k=5))
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(40, .03)
        assert learn.recorder.values[-1][2] == pytest.approx(1.)
    got = ranking_metrics(m, dls, k=5)
    assert got['recall'] == got['nDCG'] == got['precision'] == 1. and got['users'] == 30
    rec = Recommender.from_learner(Learner(dls, m, loss_func=softmax_loss), seen='train')
    lists = rec.recommend([3, 8], 5)
    assert (lists.item % 2 == lists.user % 2).all() and lists.user.tolist() == [3]*5 + [8]*5
    assert lists.groupby('user').score.apply(lambda s: s.is_monotonic_decreasing).all()
    new = rec.recommend_new([0, 2, 4, 6], 10)  # somebody new, with four items
    assert (
        (new.item % 2 == 0).all() and not new.item.isin([0, 2, 4, 6]).any() and list(new) == ['item', 'score']
    )
    # stars are not asked for, and not used
    assert rec.recommend_new({0: 1, 2: 1, 4: 1, 6: 1}, 10).equals(new)
    rated = Recommender.from_learner(
        Learner(dls, DotProduct(dls.n_users, dls.n_items, 3), loss_func=softmax_loss)
    )
    with pytest.raises(DataError, match='ratings are {title: rating} or pairs'): rated.recommend_new([0])
    for ask, words in (
        (lambda: rec.recommend([3, 99]), 'no user is 99'),
        (lambda: rec.recommend('#na#'), 'no name'),
        (lambda: rec.recommend_new('x'), "no item is 'x'"),
    ):
        with pytest.raises(UnknownName, match=words): ask()
    with pytest.raises(NotInModel, match='cannot take in'): rec.fold_in([0, 2])


@pytest.mark.parametrize('name', RANKERS)
def test_a_ranker_is_saved_and_its_history_once(name, tmp_path):
    from safetensors.torch import load_file

    rows = pd.DataFrame(
        [(u, i) for u in range(30) for i in range(40) if u % 2 == i % 2 and (u + i) % 3],
        columns=['user', 'item'],
    )
    dls = HistoryDataLoaders.from_df(rows, valid_pct=.2, seed=0, bs=8)
    set_seed(0)
    rec = Recommender.from_learner(
        Learner(dls, RANKERS[name](dls.n_users, dls.n_items, dls.train_ds.x), loss_func=softmax_loss)
    )
    rec.save(tmp_path/'r')
    assert not [k for k in load_file(tmp_path/'r'/'model.safetensors') if k.startswith('history')]
    again = Recommender.load(tmp_path/'r')
    assert again.recommend(None, 7).equals(rec.recommend(None, 7)) and again.recommend_new([0, 2], 7).equals(
        rec.recommend_new([0, 2], 7)
    )
    assert torch.equal(again.model.history.pairs, rec.model.history.pairs) and type(again.model) is type(
        rec.model
    )


def two_tastes(users, items) -> pd.DataFrame:
    "Pairs of users and items that are both even or both odd, two in three of them"
    return pd.DataFrame([(u, i) for u in users for i in items if u % 2 == i % 2 and (u + i) % 3],
                        columns=['user', 'item'])


def ranker(name, rows, n_epoch=40):
    "A recommender with a ranker made of, or trained on, all rows"
    dls = HistoryDataLoaders.from_df(rows, valid_pct=0., seed=0, bs=8)
    set_seed(0)
    learn = Learner(dls, RANKERS[name](dls.n_users, dls.n_items, dls.train_ds.x), loss_func=softmax_loss)
    if list(learn.model.parameters()):
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, .03)
    return Recommender.from_learner(learn)


@pytest.mark.parametrize('name', RANKERS)
def test_a_ranker_takes_in_what_came_later(name, tmp_path):
    "New users and new items; the old recommender stays, and the new one is saved and loaded"
    rec = ranker(name, two_tastes(range(30), range(40)))
    before = rec.recommend(None, 5)
    later = two_tastes(range(30, 36), range(44))                        # users and items that nobody knew
    new = rec.update(later)
    assert rec.recommend(None, 5).equals(before) and (len(rec.users), len(rec.items)) == (31, 41)
    assert (len(new.users), len(new.items)) == (37, 45) and len(new.rated) == len(rec.rated) + len(later)
    assert torch.equal(new.model.history.pairs, new.rated.pairs)        # what a list is made of, too
    lists = new.recommend(list(range(36)), 5)
    assert list(lists) == ['user', 'item', 'score'] and lists.user.nunique() == 36
    if name != 'popularity': assert (lists.item % 2 == lists.user % 2).mean() > .95
    shown = new.recommend(list(range(30)), 44).groupby('user')['item'].apply(set)
    assert all({40, 42} & items or {41, 43} & items for items in shown)  # the new items can be offered
    new.save(tmp_path/'later')
    assert Recommender.load(tmp_path/'later').recommend(None, 5).equals(new.recommend(None, 5))
    with pytest.raises(DataError): rec.update(later[['user']])


@pytest.mark.parametrize('name', ['popularity', 'EASE', 'EASE, paper'])
def test_what_is_solved_at_once_is_the_same_whenever_it_was_told(name):
    rows = two_tastes(range(30), range(40)).sample(frac=1, random_state=0)
    first, later = rows.iloc[:300], rows.iloc[300:]
    updated, anew = ranker(name, first).update(later), ranker(name, rows)
    items = anew.items[1:]
    for user in anew.users[1:]:
        pairs = [(user, item) for item in items]
        np.testing.assert_allclose(updated.predict(pairs), anew.predict(pairs), atol=1e-4)


def test_a_trained_ranker_moves_only_new_rows_first():
    rec = ranker('MultDAE', two_tastes(range(30), range(40)))
    new = rec.update(two_tastes(range(30, 36), range(44)), n_epoch=0)
    old = len(rec.items)
    assert torch.equal(new.model.item_factors[:old], rec.model.item_factors)
    assert not torch.allclose(new.model.item_factors[old:], rec.model.item_factors[1:].mean(0))
    twice = [rec.update(two_tastes(range(30, 36), range(44)), seed=3) for _ in range(2)]
    assert torch.equal(*(r.model.item_factors for r in twice))          # the same seed, the same numbers
    assert rec.update(two_tastes([40], range(40)), recipe='fast').ranks


def test_a_list_of_predicted_ratings_warns_and_a_ranked_one_does_not(recwarn):
    rows = two_tastes(range(30), range(40))
    dls = RatingsDataLoaders.from_df(rows.assign(rating=1. + rows.item % 5), seed=0)
    rated = Recommender.from_learner(Learner(dls, DotProductBias(dls.n_users, dls.n_items, 3, (.5, 5.5))))
    warnings.simplefilter('always')
    ranker('EASE', rows).recommend(3)
    ranker('EASE', rows).recommend_new([0, 2])
    assert not [w for w in recwarn if w.category is PoorListWarning]
    for ask in (lambda: rated.recommend(3), lambda: rated.recommend_new({0: 5, 2: 1})):
        with pytest.warns(PoorListWarning, match='EASE'): ask()
    rated.recommend_new({})                                              # what is popular
    rated.predict((3, 3))
    assert not [w for w in recwarn if w.category is PoorListWarning]


def test_softmax_loss():
    scores, chosen = torch.randn(6, 9, requires_grad=True), (torch.rand(6, 9) < .4).float()
    want = torch.stack(
        [
            sum(-s.log_softmax(0)[i] for i in range(9) if c[i]) if c.any() else torch.tensor(0.0)
            for s, c in zip(scores, chosen)
        ]
    )
    assert torch.allclose(softmax_loss(scores, chosen, reduction='none'), want, atol=1e-5) and torch.allclose(
        softmax_loss(scores, chosen), want.mean(), atol=1e-5
    )
    assert torch.allclose(softmax_loss(scores, chosen, 'sum'), want.sum(), atol=1e-4)
    one = torch.zeros(6, 9).scatter_(1, torch.randint(9, (6, 1)), 1.)
    assert torch.allclose(softmax_loss(scores, one), F.cross_entropy(scores, one.argmax(1)), atol=1e-6)


def test_dropout_hides_histories_in_training_only(hdls):
    m = MultDAE(hdls.n_users, hdls.n_items, 6, hdls.train_ds.x).train()
    u = torch.tensor([1, 2])
    assert not torch.equal(m(u), m(u))
    assert torch.equal(rank_scores(m, u), rank_scores(m, u))
    assert torch.allclose(score(m, 1, 2), factors(m, 'user')[1] @ factors(m)[2] + biases(m)[2], atol=1e-6)
    with pytest.raises(NotInModel, match='no biases of users'): biases(m, 'user')
    with pytest.raises(ValueError, match="'user' or 'item'"): factors(m, 'genre')


# The whole protocol

def test_ranking_metrics_against_a_loop(table, hdls):
    "Everything at once, from scores with many ties, user by user"
    scores = torch.randint(
        0, 6, (hdls.n_users, hdls.n_items), generator=torch.Generator().manual_seed(0)
    ).float()
    known, wanted = {}, {}
    for side, x in ((known, hdls.train_ds.x), (wanted, hdls.valid_ds.x)):
        for u, i in x.tolist(): side.setdefault(u, set()).add(i)
    candidates, counts = set().union(*known.values()), hdls.train_ds.x[:, 1].bincount(minlength=hdls.n_items)
    each, shown = [], []
    for u in sorted(wanted):
        ranked = sorted(candidates - known.get(u, set()), key=lambda i: (-scores[u, i].item(), i))[:10]
        hits = [int(i in wanted[u]) for i in ranked]
        each.append(loop(hits + [0]*(10 - len(hits)), len(wanted[u]))); shown += ranked
    got = ranking_metrics(lambda users: scores[users], hdls)
    for name, value in pd.DataFrame(each).mean().items():
        assert got[name] == pytest.approx(value, abs=1e-6), name
    assert (
        got['coverage'] == pytest.approx(len(set(shown)) / len(candidates))
        and got['users'] == len(wanted) < hdls.n_users - 1
    )
    assert got['novelty'] == pytest.approx(np.mean([-np.log2(counts[i].item()/len(known)) for i in shown]))
    users = ranking_metrics(lambda users: scores[users], hdls, per_user=True)
    assert list(users.index) == [hdls.classes['user'][u] for u in sorted(wanted)] and np.allclose(
        users['nDCG'], [e['nDCG'] for e in each], atol=1e-6
    )


def test_blocks_change_nothing(hdls, monkeypatch):
    m = EASE(hdls.n_users, hdls.n_items, hdls.train_ds.x)
    want = ranking_metrics(m, hdls), score(m, torch.arange(hdls.n_users)[:, None], torch.arange(hdls.n_items))
    for module in ('evaluation', 'rankers', 'ranking'):
        monkeypatch.setattr(f'collab_course.{module}._rows', lambda n: 7)
    again = EASE(hdls.n_users, hdls.n_items, hdls.train_ds.x)
    assert ranking_metrics(again, hdls).equals(want[0]) and torch.allclose(
        score(again, torch.arange(hdls.n_users)[:, None], torch.arange(hdls.n_items)), want[1], atol=1e-6
    )


def test_what_cannot_be_found():
    """A pair known in training is not to be found; an item without a training row is, and cannot be; a user
    with neither has no number"""
    rows = pd.DataFrame(
        [('a', 'x'), ('a', 'y'), ('b', 'x'), ('b', 'z'), ('a', 'x'), ('b', 'y'), ('c', 'new'), ('b', 'new')],
        columns=['user', 'item'],
    )
    dls = HistoryDataLoaders.from_df(rows, valid_idx=[4, 5, 6, 7], bs=2)
    users = ranking_metrics(lambda u: torch.ones(len(u), dls.n_items), dls, k=2, per_user=True)
    # a's only test row is a training pair
    assert list(users.index) == ['b', 'c']
    # b: y found, new not; c: nothing
    assert users.recall.tolist() == [.5, 0.] and users.precision.tolist() == [.5, 0.]
    assert ranking_metrics(lambda u: torch.ones(len(u), dls.n_items), dls, k=2)['users'] == 2
    with pytest.raises(DataError, match='nothing to find'):
        ranking_metrics(
            lambda u: torch.ones(len(u), dls.n_items), HistoryDataLoaders.from_df(rows, valid_idx=[4], bs=2)
        )
    with pytest.raises(ValueError, match=r'must be \(users, n_items\)'):
        ranking_metrics(lambda u: torch.ones(len(u), 3), dls)
    with pytest.raises(ValueError, match='NaN'):
        ranking_metrics(lambda u: torch.full((len(u), dls.n_items), float('nan')), dls)
    with pytest.raises(
        NotInModel,
        match='a Linear does not say how many items it has; give a model of this course or a function',
    ):
        ranking_metrics(nn.Linear(2, 2), dls)
    with pytest.raises(NotInModel): ranking_metrics(3, dls)


def test_the_metric_says_what_the_table_says(table, hdls):
    recipe = replace(ranking_recipe, n_epoch=3, bs=16)
    learn = ranking_learner(hdls, recipe=recipe, metrics=[AtK(), AtK(recall_at_k, 5)])
    with learn.no_bar(), learn.no_logging(): recipe.fit(learn)
    assert learn.recorder.metric_names[3:5] == ['nDCG@10', 'recall@5']
    got = list(learn.recorder.values[-1][2:4])
    assert got == pytest.approx(
        [ranking_metrics(learn.model, hdls)['nDCG'], ranking_metrics(learn.model, hdls, 5)['recall']],
        abs=1e-6,
    )
    b = next(iter(hdls.valid))
    shown = hdls.valid.show_results(b, learn.model(b[0]), max_n=3, show=False)
    assert (
        shown.shape == (3, 4)
        and shown.offered[0].count('|') == 2
        and shown.user.tolist() == [hdls.classes['user'][u] for u in b[0][:3].tolist()]
    )
    again = ranking_learner(hdls, recipe=recipe)
    with again.no_bar(), again.no_logging(): recipe.fit(again)
    # the same seed, the same model
    assert torch.equal(rank_scores(again.model, [1, 2]), rank_scores(learn.model, [1, 2]))
    with pytest.raises(DataError, match='HistoryDataLoaders are needed'):
        ranking_learner(RatingsDataLoaders.from_df(table))


def test_validation_rows_do_not_reach_the_models(ml):
    "Other validation rows, the same training rows: the same model"
    train, valid = item_split(ml.ratings)
    other = ml.ratings.copy()
    other.loc[valid, 'movie'] = np.random.default_rng(0).permutation(other.movie.to_numpy()[valid])
    quick = replace(ranking_recipe, n_epoch=1)
    made = []
    for r in (ml.ratings, other):
        d = HistoryDataLoaders.from_df(r, valid_idx=valid, seed=0)
        learn = ranking_learner(d, recipe=quick)
        with learn.no_bar(), learn.no_logging(): quick.fit(learn)
        made.append(
            (
                rank_scores(EASE(d.n_users, d.n_items, d.train_ds.x), torch.arange(50)),
                rank_scores(learn.model, torch.arange(50)),
            )
        )
    assert all(torch.equal(a, b) for a, b in zip(*made))


def test_rankers_beat_popularity_and_model_4_does_not(ml):
    valid = item_split(ml.ratings)[1]
    d, h = (L.from_df(ml.ratings, valid_idx=valid, seed=0) for L in (RatingsDataLoaders, HistoryDataLoaders))
    fast = recipes['fast']
    four = fast.learner(d, lambda u, i: DotProductBias(u, i, 50), 0)
    with four.no_bar(), four.no_logging(): fast.fit(four)
    got = {
        n: ranking_metrics(m, h)['nDCG']
        for n, m in (
            ('popularity', Popularity(h.n_users, h.n_items, h.train_ds.x)),
            ('EASE', EASE(h.n_users, h.n_items, h.train_ds.x)),
            ('4', four.model),
        )
    }
    assert abs(got['popularity'] - .251) < .01 and got['EASE'] > .47 and .1 < got['4'] < .7*got['popularity']
    assert got['4'] == ranking_metrics(four.model, d)['nDCG']                                # either loaders


def test_memory_is_bounded():
    "20,000 users × 3,000 items: all scores at once would be 240 MB"
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        dict(user=rng.integers(0, 20_000, 200_000), item=rng.integers(0, 3_000, 200_000))
    ).drop_duplicates()
    d = HistoryDataLoaders.from_df(rows, valid_pct=.1, seed=0)
    seen = []
    def model(users):
        seen.append(len(users))
        return torch.rand(len(users), d.n_items)
    ranking_metrics(model, d)
    assert max(seen)*d.n_items <= 2**24 and sum(seen) == len(d.valid_ds.x[:, 0].unique()) > 10_000
