"The Keras lesson: its rules, its models, its numbers, and a spreadsheet that calculates."
import importlib.util, math, re, shutil, subprocess
from copy import deepcopy
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from collab_course.errors import DataError
from collab_course.data import busiest_crosstab
from collab_course.movielens import movielens
from collab_course.synthetic import synthetic_ratings
from collab_course.dot_product import *
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.keras_style import *
from collab_course.spreadsheet import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.progression import BiasOnly
from collab_course.training import recipes

MODELS = {
    'dot': (lambda d: KerasStyleDotProduct(d.n_users, d.n_items, 5), {}),
    'bias': (lambda d: KerasStyleBias(d.n_users, d.n_items, 5), {}),
    'net': (lambda d: KerasStyleNN(d.n_users, d.n_items, 10, 30, (0, 0)), dict(wd=0.0)),
    'net with its dropout': (lambda d: KerasStyleNN(d.n_users, d.n_items), dict(wd=0.0, right=0)),
}


@pytest.fixture(scope='module')
def tiny():
    return RatingsDataLoaders.from_df(synthetic_ratings(60, 40, 1_500, seed=1).ratings, seed=0, device='cpu')


def quietly(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)
    return learn


@pytest.mark.parametrize('name', MODELS)
def test_contract(name): check_model(MODELS[name][0], **MODELS[name][1])


@pytest.mark.cuda
@pytest.mark.parametrize('name', MODELS)
def test_contract_on_cuda(name): check_model(MODELS[name][0], device='cuda', **MODELS[name][1])


def test_start_is_keras_own():
    set_seed(0)
    for model in (KerasStyleDotProduct(900, 1600), KerasStyleBias(900, 1600), KerasStyleNN(900, 1600)):
        for which in ('user', 'item'):
            w = factors(model, which)
            assert (
                w.shape[1] == 50
                and -0.05 <= w.min() < -0.0499
                and 0.0499 < w.max() <= 0.05
                and abs(w.mean()) < 1e-3
            )
    hidden, last = [m for m in model.layers if isinstance(m, nn.Linear)]
    assert (
        hidden.weight.shape == (70, 100)
        and last.weight.shape == (1, 70)
        and [m.p for m in model.layers if isinstance(m, nn.Dropout)] == [0.3, 0.75]
    )
    for layer in (hidden, last):                                    # Glorot: even, up to √(6/(in + out))
        edge = (6/sum(layer.weight.shape))**.5
        assert layer.bias.abs().sum() == 0 and .9*edge < layer.weight.abs().max() <= edge
    assert .049 < biases(KerasStyleBias(900, 1600)).abs().max() <= .05


def test_formulas():
    x = torch.tensor([[1, 2], [0, 0], [4, 3]])
    dot, bias, net = KerasStyleDotProduct(5, 4, 3), KerasStyleBias(5, 4, 3), KerasStyleNN(5, 4, 3).eval()
    product = lambda m: (factors(m, 'user')[x[:, 0]]*factors(m)[x[:, 1]]).sum(1)
    assert torch.allclose(dot(x), product(dot)) and torch.allclose(
        bias(x), product(bias) + biases(bias, 'user')[x[:, 0]] + biases(bias)[x[:, 1]]
    )
    both = torch.cat([factors(net, 'user')[x[:, 0]], factors(net)[x[:, 1]]], 1)
    assert torch.allclose(
        net(x), net.layers[1](both).relu() @ net.layers[4].weight[0] + net.layers[4].bias
    ) and net(x).shape == (3,)
    net.train(); assert not torch.equal(net(x), net(x))             # dropout
    for model in (net, dot):
        with pytest.raises(NotInModel): biases(model)


def trained(dls, *cbs, **kwargs):
    set_seed(0); dls.train.restart()
    return quietly(
        Learner(dls, KerasStyleBias(dls.n_users + 5, dls.n_items), opt_func=SGD, lr=0.1, cbs=cbs), 1, **kwargs
    )


def test_penalty_is_that_of_the_loss(tiny):
    """The same weights as with the penalty written into the loss, at every row, rated or not; the losses
    reported are those of the ratings"""

    class Naive(Callback):
        def after_loss(self):
            if self.training:
                self.learn.loss_grad = self.loss_grad + 0.01 * sum(
                    (p**2).sum() for p in (self.model.user_factors.weight, self.model.item_factors.weight)
                )

    ours, naive, none = trained(tiny, WholeMatrixL2(.01)), trained(tiny, Naive()), trained(tiny)
    for a, b in zip(ours.model.parameters(), naive.model.parameters()): assert torch.allclose(a, b, atol=1e-6)
    assert np.allclose(ours.recorder.values[-1], naive.recorder.values[-1], atol=1e-5)
    set_seed(0); start = KerasStyleBias(tiny.n_users + 5, tiny.n_items).user_factors.weight[-5:]
    unrated = lambda learn: learn.model.user_factors.weight[-5:]
    assert torch.equal(unrated(none), start)
    # pulled once in every batch
    assert torch.allclose(unrated(ours), start*(1 - 2*.01*.1)**len(tiny.train), atol=1e-6)
    assert ours.whole_matrix_l2.penalties == [
        pytest.approx(
            0.01 * sum((factors(ours.model, w) ** 2).sum().item() for w in ('user', 'item')), rel=1e-5
        )
    ]


def test_penalty_once_a_step_when_gradients_are_accumulated(tiny):
    class Steps(Callback):
        order, n = 100, 0
        def before_step(self): self.n += 1                          # not reached by a step that is put off
    steps = Steps()
    ours = trained(tiny, WholeMatrixL2(.01), steps, GradientAccumulation(128))
    set_seed(0); start = KerasStyleBias(tiny.n_users + 5, tiny.n_items).user_factors.weight[-5:]
    assert 0 < steps.n < len(tiny.train)
    assert torch.allclose(ours.model.user_factors.weight[-5:], start*(1 - 2*.01*.1)**steps.n, atol=1e-6)


def test_what_is_penalised(tiny):
    learn = quietly(keras_learner(tiny, KerasStyleBias(tiny.n_users, tiny.n_items)), 1, .001)
    assert [
        w is f.weight
        for w, f in zip(
            learn.whole_matrix_l2.weights, (learn.model.user_factors, learn.model.item_factors), strict=True
        )
    ] == [True, True]
    scratch = lambda of: Learner(
        tiny, DotProductBiasScratch(tiny.n_users, tiny.n_items, 3), cbs=WholeMatrixL2(of=of)
    )
    learn = quietly(scratch(lambda m: [m.item_factors]), 1, .01)
    assert learn.whole_matrix_l2.weights[0] is learn.model.item_factors
    learn = keras_learner(
        tiny, DotProductBiasScratch(tiny.n_users, tiny.n_items, 3), of=lambda m: [m.user_factors]
    )
    # before any training, too
    assert learn.whole_matrix_l2.penalty() == pytest.approx(
        1e-4 * (learn.model.user_factors**2).sum().item(), rel=1e-4
    )
    with pytest.raises(ValueError, match='say by `of`'): quietly(scratch(None), 1, .01)
    assert not any(
        isinstance(cb, WholeMatrixL2) for cb in keras_learner(tiny, KerasStyleBias(9, 9), l2=0).cbs
    )


def test_adam_is_keras_own():
    "Against its formula in float64, over 60 steps of gradients from tiny to large"
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=7), rng.normal(size=(60, 7))*10.**rng.integers(-7, 2, 7)
    p = torch.tensor(start, requires_grad=True)
    opt, want, m, v = KerasAdam([p]), start.copy(), np.zeros(7), np.zeros(7)
    for t, g in enumerate(grads, 1):
        if t == 30: opt.set_hypers(lr=.01)                          # a new phase
        lr = .001 if t < 30 else .01
        p.grad = torch.tensor(g); opt.step()
        m, v = .9*m + .1*g, .999*v + .001*g**2
        want -= lr*math.sqrt(1 - .999**t)/(1 - .9**t)*m/(np.sqrt(v) + 1e-7)
    assert np.allclose(p.detach().numpy(), want, atol=1e-10)


def test_adam_goes_on_after_loading_and_decays_if_asked():
    "Its ε depends on the steps that were made; a `wd` shrinks weights past the gradient"
    def steps(opt, p, n, grads):
        for g in grads[n]: p.grad = torch.tensor([g]); opt.step()
    grads = {'before': [1e-6, 3e-6], 'after': [2e-6, -1e-6]}
    whole = torch.zeros(1, requires_grad=True)
    opt = KerasAdam([whole])
    steps(opt, whole, 'before', grads)
    again, state = whole.detach().clone().requires_grad_(), deepcopy(opt.state_dict())
    loaded = KerasAdam([again])
    loaded.load_state_dict(state)
    steps(opt, whole, 'after', grads)
    steps(loaded, again, 'after', grads)
    assert torch.equal(whole, again)
    p = torch.ones(1, requires_grad=True)
    p.grad = torch.zeros(1)
    KerasAdam([p], lr=.01, wd=.1).step()
    assert p.item() == pytest.approx(1 - .01*.1)


def test_no_decay(tiny):
    "A row without ratings stays where it started if there is no penalty"
    set_seed(0); model = KerasStyleBias(tiny.n_users + 1, tiny.n_items)
    start = model.user_factors.weight[-1].clone()
    quietly(keras_learner(tiny, model, l2=0), 2, .01)
    assert torch.equal(model.user_factors.weight[-1], start)


def test_phases(tiny):
    learn = keras_learner(tiny, KerasStyleBias(tiny.n_users, tiny.n_items, 4))
    table = fit_phases(learn, [(1, .001), (2, .01)])
    opt = learn.opt
    more = fit_phases(learn, [(1, .001)])
    # its state was kept
    assert learn.opt is opt and opt.state and all(s['step'] == 4*len(tiny.train) for s in opt.state.values())
    assert table.index.tolist() == [
        ('1: 1 epoch at 0.001', 1),
        ('2: 2 epochs at 0.01', 2),
        ('2: 2 epochs at 0.01', 3),
    ]
    assert (
        table.columns.tolist() == ['train_mse', 'valid_mse', 'penalty']
        and table.notna().all().all()
        and len(more) == 1
    )
    assert table.penalty.tolist() + more.penalty.tolist() == learn.whole_matrix_l2.penalties
    assert list(
        fit_phases(keras_learner(tiny, KerasStyleBias(tiny.n_users, tiny.n_items, 4), l2=0), [(1, 0.01)])
    ) == ['train_mse', 'valid_mse']
    assert len(fit_phases(learn, [(np.int64(1), np.float32(.001))])) == 1
    for bad in (
        [(0, 0.01)],
        [(1, 0)],
        [3],
        [(1.5, 0.01)],
        [(1, 0.01, 2)],
        [(1, -1)],
        [(1, 'a')],
        [(True, 0.1)],
        [],
    ):
        with pytest.raises(ValueError, match='phase'): fit_phases(learn, bad)


def test_phases_that_end_early(tiny):
    class StopAfter(Callback):
        order = 60                                                   # as fastai's EarlyStoppingCallback
        def after_epoch(self):
            if self.epoch == 1: raise CancelFitException()
    learn = keras_learner(tiny, KerasStyleBias(tiny.n_users, tiny.n_items, 4), cbs=StopAfter())
    table = fit_phases(learn, [(5, .001), (1, .001)])
    assert len(table) == 3 and table.penalty.notna().all()
    # each row has its own
    assert table.penalty.iloc[2] == pytest.approx(learn.whole_matrix_l2.penalty())


def test_phases_without_validation(tiny):
    dls = RatingsDataLoaders.from_df(tiny.train_ds.items, valid_pct=0, seed=0)
    table = fit_phases(keras_learner(dls, KerasStyleBias(dls.n_users, dls.n_items, 4)), [(1, .001)])
    assert table.train_mse.notna().all() and table.valid_mse.isna().all() and table.valid_mse.dtype == float


def test_penalty_comes_before_clipping(tiny):
    "What is clipped is the gradient with the penalty in it"
    set_seed(0); model = KerasStyleBias(tiny.n_users, tiny.n_items, 4)
    before = [p.clone() for p in model.parameters()]
    learn = Learner(
        tiny, model, opt_func=SGD, lr=1.0, cbs=[WholeMatrixL2(1e3), GradientClip(0.01), CancelAfterOne()]
    )
    quietly(learn, 1, 1.)
    step = torch.cat([(a - b).flatten() for a, b in zip(before, model.parameters())]).norm()
    assert abs(step - .01) < 1e-4


class CancelAfterOne(Callback):
    def after_batch(self):
        if self.training: raise CancelTrainException()


def test_phases_of_the_lesson():
    assert keras_phases == {
        'dot product': [(1, 0.001), (3, 0.01), (6, 0.001)],
        'bias': [(1, 0.001), (6, 0.01), (10, 0.001), (5, 0.001)],
        'net': [(8, 0.001)],
    }


def test_on_ml_100k(ml):
    "The lesson on real ratings: after nine epochs the bias model is well past the biases alone"
    dls = RatingsDataLoaders.from_df(ml.ratings, item_name='movie', rating_name='rating', bs=64, seed=0)
    set_seed(0)
    table = fit_phases(
        keras_learner(dls, KerasStyleBias(dls.n_users, dls.n_items)), keras_phases['bias'][:2] + [(2, 0.001)]
    )
    alone = recipes['fast'].fit(recipes['fast'].learner(dls, BiasOnly), decay=False).recorder.values[-1][1]
    assert .84 < table.valid_mse.iloc[-1] < min(.87, alone - .02)


# Validation MSE of Keras 3 (PyTorch backend) on another split of the 2016 edition
KERAS = {'dot product': [3.95, 2.07, 2.09, 2.00, 1.51, 1.47, 1.47, 1.47, 1.47, 1.48],
         'bias': [3.15, 1.35, 1.03, .86, .83, .84, .84, .811, .803, .801, .801],
         'net': [.872, .831, .847, .815, .794, .791, .786, .785]}


@pytest.mark.parametrize(
    'kind, model', [('dot product', KerasStyleDotProduct), ('bias', KerasStyleBias), ('net', KerasStyleNN)]
)
def test_follows_keras(kind, model):
    try: small = movielens('ml-latest-small-2016', verbose=False)
    except DataError: pytest.skip('the 2016 edition of ml-latest-small is not at hand')
    dls = RatingsDataLoaders.from_df(small.ratings, item_name='movie', rating_name='rating', bs=64, seed=0)
    set_seed(0)
    ours = fit_phases(
        keras_learner(dls, model(dls.n_users, dls.n_items)), keras_phases[kind]
    ).valid_mse.to_numpy()
    want = np.array(KERAS[kind])
    far = np.abs(ours[:len(want)] - want)/want
    # the net is noisy in its first epochs, in Keras too
    assert far.max() < (.08 if kind == 'net' else .06) and far[4:].max() < .03
    if kind == 'dot product': assert ours.min() > 1.3
    if kind == 'bias':
        assert (
            abs(ours.min() - 0.80) < 0.02
            and ours.argmin() in range(8, 13)
            and ours.min() < ours[-1] < ours.min() + 0.03
        )
    if kind == 'net': assert abs(ours[-1] - .785) < .02


# The spreadsheet

@pytest.fixture
def table():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        np.where(rng.random((6, 4)) < 0.3, np.nan, rng.integers(1, 6, (6, 4))),
        index=[7, 3, 9, 1, 8, 2],
        columns=['=1+1', 'Brazil (1985)', "It's", 'Ünïcode & <b>'],
    )


def models(n_users=6, n_items=4):
    set_seed(0)
    ranged = DotProductBias(n_users + 1, n_items + 1, 3, (.5, 5.5))
    for p in ranged.parameters(): p.data.normal_()
    return spreadsheet_models(n_users, n_items, 3) | {'a range': ranged}


def read(path):
    "For each sheet: its rows as values, from the numbers that the file carries"
    openpyxl = pytest.importorskip('openpyxl')
    return {
        s.title: [[c.value for c in row] for row in s.iter_rows()]
        for s in openpyxl.load_workbook(path, data_only=True)
    }


def grids(rows, n, m):
    "(ratings, predictions, squared errors) of a sheet"
    res = []
    for title in ('Ratings', 'Predictions', 'Squared errors'):
        k = next(i for i, r in enumerate(rows) if r[0] == title)
        first = next(i for i in range(k + 1, len(rows)) if rows[i][0] not in (None, ''))
        res.append(
            np.array(
                [[np.nan if v in (None, '') else v for v in r[-m:]] for r in rows[first : first + n]], float
            )
        )
    return res


def agrees(rows, table, model):
    n, m = table.shape
    want = score(model, torch.arange(1, n + 1)[:, None], torch.arange(1, m + 1)).numpy().astype(float)
    r = table.to_numpy()
    want[np.isnan(r)] = np.nan
    ratings, pred, errors = grids(rows, n, m)
    assert np.array_equal(ratings, r, equal_nan=True)
    assert np.allclose(pred, want, atol=1e-5, equal_nan=True) and np.allclose(
        errors, (want - r) ** 2, atol=1e-4, equal_nan=True
    )
    assert abs(rows[1][1] - np.sqrt(np.nanmean((want - r)**2))) < 1e-5


def test_workbook_carries_the_numbers_of_the_package(tmp_path, table):
    ms = models()
    sheets = read(to_excel(tmp_path/'b.xlsx', table, ms))
    assert list(sheets) == ['dot product', 'with biases', 'a range']
    for name, model in ms.items(): agrees(sheets[name], table, model)
    # text, '=1+1' too
    assert [r[-4:] for r in sheets['a range'] if r[0] == 'Ratings'] == [list(table.columns)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ['b.xlsx']
    import openpyxl
    for sheet in openpyxl.load_workbook(tmp_path/'b.xlsx'):
        assert sheet.defined_names['RMSE'].attr_text.endswith('!$B$2') and sheet['B2'].value.startswith(
            '=SQRT(AVERAGE('
        )


def calculate(path):
    """Every cell of every sheet by its formula, in Python: + * / ^ EXP IF SQRT AVERAGE, the grammar that
    `to_excel` writes"""
    openpyxl = pytest.importorskip('openpyxl')
    from openpyxl.utils import range_boundaries
    def value(sheet, ref): return result(sheet[ref.replace('$', '')].value, sheet)
    def result(v, sheet):
        if not (isinstance(v, str) and v.startswith('=')): return v
        f = v[1:]
        if m := re.fullmatch(r'SQRT\(AVERAGE\((\w+:\w+)\)\)', f):
            c0, r0, c1, r1 = range_boundaries(m[1])
            numbers = [
                x
                for x in (
                    result(sheet.cell(r, c).value, sheet)
                    for r in range(r0, r1 + 1)
                    for c in range(c0, c1 + 1)
                )
                if isinstance(x, (int, float))
            ]
            return math.sqrt(sum(numbers)/len(numbers))
        if m := re.fullmatch(r'IF\((\w+)="","",(.*)\)', f):
            if value(sheet, m[1]) in (None, ''): return ''
            f = m[2]
        terms = re.sub(
            r'\$?[A-Z]{1,2}\$?\d+',
            lambda m: f'({value(sheet, m[0])!r})',
            f.replace('EXP', 'exp').replace('^', '**'),
        )
        return eval(terms, {'exp': math.exp})
    out = {}
    for s in openpyxl.load_workbook(path):
        out[s.title] = [
            [c.value if c.data_type == 's' else result(c.value, s) for c in row] for row in s.iter_rows()
        ]
    return out


def test_formulas_give_the_numbers_of_the_package(tmp_path, table):
    ms = models()
    for name, rows in calculate(to_excel(tmp_path/'b.xlsx', table, ms)).items(): agrees(rows, table, ms[name])


def change(path):
    """As a reader would: another number in one yellow cell of each sheet, and a rating in a blank; the
    values in the file are dropped"""
    openpyxl = pytest.importorskip('openpyxl')
    book = openpyxl.load_workbook(path)
    for s in book:
        rows = [[c.value for c in row] for row in s.iter_rows()]
        first = next(i for i, r in enumerate(rows) if r[0] == 'Predictions')
        user = next(i for i in range(first + 1, len(rows)) if rows[i][0] not in (None, ''))
        s.cell(user + 2, 2).value = 2.5                              # the second user's first factor
        rated = next(i for i, r in enumerate(rows) if r[0] == 'Ratings') + 1
        i, j = next(
            (i, j) for i in range(6) for j in range(4) if rows[rated + i][len(rows[0]) - 4 + j] is None
        )
        s.cell(rated + i + 1, len(rows[0]) - 4 + j + 1).value = 4
    book.save(path)
    return i, j


def changed(ms, table, i, j):
    for m in ms.values(): m.user_factors.weight.data[2, 0] = 2.5
    table = table.copy(); table.iloc[i, j] = 4
    return table


def test_formulas_are_live(tmp_path, table):
    ms, path = models(), to_excel(tmp_path/'b.xlsx', table, models())
    table = changed(ms, table, *change(path))
    for name, rows in calculate(path).items(): agrees(rows, table, ms[name])


@pytest.mark.skipif(not shutil.which('soffice'), reason='LibreOffice is not installed')
def test_libreoffice_recalculates(tmp_path, table):
    def office(path):
        (tmp_path/'out').mkdir(exist_ok=True)
        subprocess.run(
            [
                'soffice',
                f'-env:UserInstallation=file://{tmp_path}/profile',
                '--headless',
                '--convert-to',
                'xlsx',
                '--outdir',
                str(tmp_path / 'out'),
                str(path),
            ],
            check=True,
            capture_output=True,
            timeout=180,
        )
        return read(tmp_path/'out'/path.name)
    ms, path = models(), to_excel(tmp_path/'b.xlsx', table, models())
    before = office(path)
    for name, rows in before.items(): agrees(rows, table, ms[name])
    new = changed(ms, table, *change(path))
    for name, rows in office(path).items():
        agrees(rows, new, ms[name])
        assert abs(rows[1][1] - before[name][1][1]) > 1e-3


def test_workbook_of_a_trained_model(tmp_path, dls, ml):
    "Labels are looked up in the loaders' vocabulary"
    learn = recipes['fast'].learner(dls, lambda u, i: DotProductBias(u, i, 8))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, .01, wd=.4)
    crosstab = busiest_crosstab(ml.ratings, user='user', item='title', rating='rating')
    rows = read(to_excel(tmp_path/'m.xlsx', crosstab, {'model 4': learn.model}, dls.classes))['model 4']
    pred = grids(rows, 15, 15)[1]
    u, i = (
        torch.tensor([dls.classes[c].o2i[o] for o in names])
        for c, names in (('user', crosstab.index), ('title', crosstab.columns))
    )
    want = score(learn.model, u[:, None], i).numpy()
    assert np.allclose(pred[crosstab.notna()], want[crosstab.notna()], atol=1e-4)
    default = read(to_excel(tmp_path/'d.xlsx', crosstab))
    for name, model in spreadsheet_models().items(): agrees(default[name], crosstab, model)


def test_the_lessons_workbook_is_what_its_cells_write(tmp_path):
    "Formulas to the letter, numbers to what another machine may round; else run: python .ci/spreadsheet.py"
    openpyxl = pytest.importorskip('openpyxl')
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location('spreadsheet_script', root/'.ci'/'spreadsheet.py')
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    committed, made = root/'nbs'/'07_keras_lesson.xlsx', maker.workbook(tmp_path)
    old, new = openpyxl.load_workbook(committed), openpyxl.load_workbook(made)
    assert old.sheetnames == new.sheetnames == ['dot product', 'with biases', 'solved']
    for sheet in old:
        for row in sheet.iter_rows():
            for cell in row:
                other = new[sheet.title][cell.coordinate].value
                if isinstance(cell.value, float): assert other == pytest.approx(cell.value, abs=.02)
                else: assert other == cell.value
    calculated = calculate(committed)
    for name, rmse in (('dot product', 2.59), ('with biases', 1.62), ('solved', .41)):
        assert calculated[name][1][1] == pytest.approx(rmse, abs=.02)


def test_unusable_workbooks(tmp_path, table):
    ok, ms = tmp_path/'b.xlsx', spreadsheet_models(6, 4)
    for args, words, error in (
        ((tmp_path / 'b.xls', table), 'must end in .xlsx', DataError),
        ((tmp_path / 'no' / 'b.xlsx', table), 'there is no folder', FileNotFoundError),
        ((ok, table * np.nan), 'at least one rating', DataError),
        ((ok, table.fillna(np.inf)), 'only finite', DataError),
        ((ok, table.astype(object).fillna('x')), 'must hold numbers', DataError),
        ((ok, table, {}), 'at least one model', DataError),
        *(
            ((ok, table, {n: ms['dot product']}), 'a sheet cannot be called', DataError)
            for n in ('a/b', 'x' * 32, '', 'a!b', "it's")
        ),
        ((ok, table, spreadsheet_models(5, 4)), 'more users than the model', DataError),
        ((ok, table, spreadsheet_models(6, 3)), 'more items than the model', DataError),
        (
            (ok, table, ms, [[1, 2, 3], table.columns]),
            'user 7 of the table is not in the vocabulary',
            DataError,
        ),
        ((ok, table, {'net': KerasStyleNN(7, 5)}), 'KerasStyleNN is not a dot product', NotInModel),
        ((ok, table, {'b': nn.Linear(2, 1)}), 'Linear has no factors', NotInModel),
    ):
        with pytest.raises(error, match=words): to_excel(*args)
    bad = spreadsheet_models(6, 4); bad['dot product'].item_factors.weight.data[2] = torch.nan
    with pytest.raises(DataError, match='not a finite number'): to_excel(ok, table, bad)
    assert not list(tmp_path.iterdir())  # and nothing was written
    with pytest.raises(DataError, match='do not fit'):
        to_excel(ok, pd.DataFrame(np.ones((1, 2**14))), spreadsheet_models(1, 2**14, 1))


def test_workbook_is_replaced_whole(tmp_path, table, monkeypatch):
    path = to_excel(tmp_path/'b.xlsx', table, models())
    old = path.read_bytes()
    monkeypatch.setattr('os.replace', lambda *a: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'): to_excel(path, table)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ['b.xlsx']
