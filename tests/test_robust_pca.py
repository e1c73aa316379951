"Low rank plus sparse: exact where theory says so, a warning where it is not done, and clear errors."
import re, warnings

import numpy as np, pandas as pd, pytest, scipy.sparse, torch

from collab_course.robust_pca import *


def planted(m=200, n=200, rank=10, share=.05, seed=0, size=None, least=0.):
    g = np.random.default_rng(seed)
    L = g.normal(size=(m, rank))@g.normal(size=(rank, n))
    S, cells = np.zeros(m*n), g.choice(m*n, int(share*m*n), replace=False)
    S[cells] = (
        g.choice([-1, 1], len(cells))
        * g.uniform(least, 1, len(cells))
        * (10 * rank**0.5 if size is None else size)
    )
    return L, S.reshape(m, n)

def apart(A, B): return float(np.linalg.norm(A - B)/np.linalg.norm(B))

@pytest.fixture(autouse=True)
def loud():
    with warnings.catch_warnings():
        warnings.simplefilter('error')          # a warning that nobody asked about is a failure
        yield


# Theory

@pytest.mark.parametrize('seed', range(20))
def test_exact_recovery(seed):
    L, S = planted(seed=seed)
    res = robust_pca(L + S)
    assert res.converged and apart(res.L, L) < 1e-6 and apart(res.S, S) < 1e-6
    assert res.rank == np.linalg.matrix_rank(res.L) == 10 and ((res.S != 0) == (S != 0)).all()
    assert apart(res.L + res.S, L + S) <= 1e-7 and res.residual == pytest.approx(
        apart(res.L + res.S, L + S), rel=0.01
    )


@pytest.mark.parametrize(
    'm, n, rank, share, size',
    [
        (400, 60, 5, 0.05, None),
        (60, 400, 5, 0.05, None),
        (200, 200, 20, 0.1, None),
        (200, 200, 10, 0.05, 1.0),
        (200, 200, 10, 0.05, 1000.0),
        (40, 30, 2, 0.03, None),
        (200, 200, 10, 0.0, None),
        (100, 100, 0, 0.05, 5.0),
    ],
)
def test_other_shapes_and_sizes(m, n, rank, share, size):
    L, S = planted(m, n, rank, share, 1, size, least=.01)
    res = robust_pca(L + S)
    assert res.converged and res.rank == rank and ((res.S != 0) == (S != 0)).all()
    assert np.linalg.norm(res.L - L) < 1e-6*np.linalg.norm(L if rank else S)

def test_recovery_at_the_size_of_all_users_by_all_films():
    "Rank 20 and 5 % gross errors in 1,665 x 943 cells: every error is found, and L is right"
    L, S = planted(1665, 943, 20, .05, least=.01)
    res = robust_pca(L + S)
    assert res.converged and res.rank == 20 and ((res.S != 0) == (S != 0)).all()
    assert apart(res.L, L) < 1e-6

def objective(L, S, lam): return np.linalg.svd(L, compute_uv=False).sum() + lam*abs(S).sum()

def test_optimal_where_nothing_is_planted():
    """No neighbour is better, a plain augmented Lagrangian with a fixed step gets no lower, and the gap is a
    true bound"""
    M = np.random.default_rng(0).normal(size=(60, 30))*np.random.default_rng(1).exponential(size=(60, 1))
    res = robust_pca(M, gap_tol=1e-4, tol=1e-9)
    ours = objective(res.L, M - res.L, res.lam)
    T, Y = torch.tensor(M), torch.zeros(60, 30).double()
    S, mu = torch.zeros_like(T), T.numel()/(4*float(T.abs().sum()))
    for _ in range(3000):
        U, s, Vh = torch.linalg.svd(T - S + Y/mu, full_matrices=False)
        L = (U*(s - 1/mu).clamp(min=0))@Vh
        S = shrink(T - L + Y/mu, res.lam/mu)
        Y = Y + mu*(T - L - S)
    # the certificate: Karush-Kuhn-Tucker
    assert torch.linalg.matrix_norm(Y, 2) <= 1 + 1e-6 and Y.abs().max() <= res.lam*(1 + 1e-9)
    best = objective(L.numpy(), (T - L).numpy(), res.lam)
    assert float((Y*T).sum()) == pytest.approx(best, rel=1e-6)
    assert best*(1 - 1e-6) <= ours <= best*(1 + res.gap + 1e-6) and ours < best*(1 + 1e-5)
    assert apart(res.L, L.numpy()) < .01
    g = np.random.default_rng(2)
    for size in (1e-3, 1e-2, .1):
        D = g.normal(size=M.shape)*size
        assert objective(res.L + D, M - res.L - D, res.lam) > ours
    # structured neighbours of the best pair, to 1e-6 of it
    opt = L.numpy()
    U, s, Vh = np.linalg.svd(opt, full_matrices=False)
    r, cells = int((s > 1e-6*s[0]).sum()), np.argwhere(abs(M - opt) > 1e-3)
    neighbours = [opt*k for k in (1 - 1e-3, 1 + 1e-3)]
    # one direction: of L, and two that are not in it
    neighbours += [opt + e*s[0]*np.outer(U[:, k], Vh[k]) for k in range(r + 2) for e in (-.01, .01)]
    # one cell: in S, and not in S
    for i, j in (*cells[::len(cells)//10], *np.argwhere(abs(M - opt) < 1e-6)[::200]):
        for e in (-1, 1): neighbours.append(opt.copy()); neighbours[-1][i, j] += e*.1*abs(M).mean()
    worse = np.array([objective(A, M - A, res.lam) for A in neighbours]) - best
    assert r >= 3 and len(neighbours) > 30 and (worse > -1e-6*best).all() and (worse > 1e-6*best).mean() > .8
    # the bound holds for them, too
    assert all(objective(A, M - A, res.lam) >= ours*(1 - res.gap) for A in neighbours)
    rough = robust_pca(M, gap_tol=.05)
    assert rough.gap <= .05 and objective(rough.L, M - rough.L, rough.lam) <= best*(1 + rough.gap + 1e-6)

@pytest.mark.parametrize('lam, rank, full', [(1.01, 20, 0), (.99/600**.5, 0, 600)])
def test_extreme_prices(lam, rank, full):
    res = robust_pca(np.random.default_rng(0).normal(size=(30, 20)), lam=lam)
    assert (res.rank, int((res.S != 0).sum()), res.lam) == (rank, full, lam) and res.converged

def test_scale_and_transpose():
    L, S = planted(60, 40, 3)
    res = robust_pca(L + S)
    for k in (1e-150, 1e-9, 1e9, 1e150):
        other = robust_pca((L + S)*k)
        assert (
            other.rank == res.rank
            and ((other.S != 0) == (res.S != 0)).all()
            and np.allclose(other.L / k, res.L, atol=1e-5)
        )
    turned = robust_pca((L + S).T)
    assert np.allclose(turned.L.T, res.L, atol=1e-5) and turned.L.flags.c_contiguous


# The parts

def test_shrink():
    x = torch.tensor([-3., -1., -.5, 0., .5, 1., 4.])
    assert shrink(x, 1.).tolist() == [-2., 0., 0., 0., 0., 0., 3.] and torch.equal(shrink(x, 0.), x)

@pytest.mark.parametrize('shape', [(30, 12), (12, 30), (12, 12), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize('t', [0., 1e-9, .7, 3., 1e3])
def test_threshold(shape, t):
    X = torch.tensor(np.random.default_rng(0).normal(size=shape))
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    L, kept = threshold_singular_values(X, t)
    assert torch.allclose(L, (U * (s - t).clamp(min=0)) @ Vh, atol=1e-12) and torch.allclose(
        kept, s[s > t], atol=1e-12
    )


def test_threshold_small_values():
    "Where the squares would lose the small values, it does not square"
    g = np.random.default_rng(0)
    Q, R = (np.linalg.qr(g.normal(size=(40, 6)))[0] for _ in range(2))
    X = torch.tensor((Q*np.array([1, 1e-3, 1e-6, 1e-8, 1e-9, 1e-10]))@R.T)
    assert torch.allclose(
        threshold_singular_values(X, 5e-10)[1], torch.tensor([1, 1e-3, 1e-6, 1e-8, 1e-9]).double(), rtol=1e-4
    )


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_threshold_in_both_precisions(dtype):
    "Where float32's squares lose the small values, it does not square either"
    g = np.random.default_rng(0)
    Q, R = (np.linalg.qr(g.normal(size=(n, 20)))[0] for n in (60, 20))
    L, kept = threshold_singular_values(torch.tensor((Q*np.array([1.] + [1e-5]*19))@R.T, dtype=dtype), 1.5e-4)
    assert (
        kept.tolist() == pytest.approx([1.0], abs=1e-5)
        and L.dtype == dtype
        and apart(L.double().numpy(), (1 - 1.5e-4) * np.outer(Q[:, 0], R[:, 0])) < 1e-4
    )


def test_gap_is_proved_at_the_end():
    "The gap of the last round bounds how far the pair is above the best one"
    M = sum(planted(260, 230, 12, .08, seed=4))
    exact, rough = robust_pca(M, gap_tol=1e-7, tol=1e-9), robust_pca(M, gap_tol=.02)
    best, ours = (objective(r.L, M - r.L, r.lam) for r in (exact, rough))
    assert 0 <= ours/best - 1 <= rough.gap <= .02


# How it ends

def test_says_when_it_did_not_converge():
    L, S = planted(seed=3)
    with pytest.warns(RuntimeWarning, match='did not converge in 7 rounds: residual') as said:
        res = robust_pca(L + S, max_iter=7)
    assert (
        not res.converged and f'{res.residual:.1e}' in str(said[0].message) and said[0].filename == __file__
    )
    assert (
        len(res.history) == 7
        and 'NOT converged' in repr(res)
        and res.residual == pytest.approx(apart(res.L + res.S, L + S), rel=0.01)
    )
    with pytest.warns(RuntimeWarning, match=r'residual \S+ \(within 0.5\), gap \S+ \(above 1e-12\)'):
        robust_pca(L + S, tol=0.5, gap_tol=1e-12, max_iter=20)


def test_every_warning_says_what_is_too_large():
    L, S = planted(100, 100, 4, seed=2)
    M, enough = L + S, len(robust_pca(L + S).history)
    assert robust_pca(M, max_iter=enough).converged
    for n in (1, 2, *range(enough - 12, enough)):
        with pytest.warns(RuntimeWarning) as said: res = robust_pca(M, max_iter=n)
        figures = re.findall(
            r'(residual|residual relative to L|gap) (\S+) \((above|within) (\S+?)\)', str(said[0].message)
        )
        assert (
            not res.converged
            and {'residual', 'gap'} <= {name for name, *_ in figures}
            and any(how == 'above' for *_, how, _ in figures)
        )
        value = {
            'residual': res.residual,
            'residual relative to L': apart(M, res.L + res.S)
            * np.linalg.norm(res.L + res.S)
            / np.linalg.norm(res.L),
            'gap': res.gap,
        }
        for name, figure, how, limit in figures:
            assert (value[name] > float(limit)) == (how == 'above') and value[name] == pytest.approx(
                float(figure), rel=0.06
            )


@pytest.mark.parametrize('shape', [(200, 200), (260, 230)])
def test_one_round_fewer_is_no_contradiction(shape):
    """The last round allowed counts if it holds: either it converged or the warning names a figure above its
    limit"""
    L, S = planted(*shape, 8, seed=5)
    enough = len(robust_pca(L + S).history)
    for n in range(enough - 4, enough + 1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            res = robust_pca(L + S, max_iter=n)
        within = res.residual <= 1e-7 and res.gap <= 1e-3
        assert res.converged == (not said) and (within or '(above' in str(said[0].message))
        if said and within: assert 'residual relative to L' in str(said[0].message)

def test_residual_against_a_small_L():
    "Errors so large that the residual is small against them, and not against L"
    L, S = planted(100, 100, 4, .02, seed=2, size=1e4)
    whole = robust_pca(L + S, tol=1e-6)
    assert whole.converged and apart(whole.L, L) < 1e-4
    said_so = 0
    for n in range(len(whole.history) - 25, len(whole.history)):
        with pytest.warns(RuntimeWarning) as said: res = robust_pca(L + S, tol=1e-6, max_iter=n)
        if 'within 1e-06' in str(said[0].message) and res.gap <= 1e-3:
            assert re.search(r'residual relative to L \S+ \(above 1e-06\)', str(said[0].message))
            said_so += 1
    assert said_so

def test_result():
    L, S = planted(60, 40, 3)
    res = robust_pca(L + S)
    A, B, history = res
    assert (
        A is res.L
        and B is res.S
        and history is res.history
        and list(history) == ['residual', 'rank', 'nonzeros', 'gap', 'mu']
    )
    assert history.index.tolist() == list(range(1, len(history) + 1))
    last = history.iloc[-1]
    assert (
        last['rank'] == res.rank == 3
        and last.nonzeros == (S != 0).sum()
        and res.residual == last.residual <= 1e-7
        and 0 <= res.gap == last.gap <= 1e-3
    )
    assert repr(res).startswith('60 x 40 = rank 3 + 120 non-zeros (5.0%); converged')

@pytest.mark.parametrize(
    'M, rank, full', [(np.zeros((4, 3)), 0, 0), (np.ones((6, 4)), 1, 0), (np.eye(5), 0, 5)]
)
def test_degenerate(M, rank, full):
    res = robust_pca(M)
    assert (
        res.converged
        and np.allclose(res.L + res.S, M, atol=1e-6)
        and (res.rank, int((res.S != 0).sum())) == (rank, full)
    )
    assert np.linalg.matrix_rank(res.L) == rank

@pytest.mark.parametrize('M', [np.array([[5.]]), np.array([[-5.]]), np.ones((1, 7)), np.ones((7, 1))])
def test_a_tie(M):
    """One cell, one row, one column: λ‖S‖₁ and ‖L‖* may cost the same, so either will do, and what L is and
    what the rank says have to agree"""
    res = robust_pca(M)
    assert (
        res.converged
        and np.allclose(res.L + res.S, M, atol=1e-6)
        and res.rank == np.linalg.matrix_rank(res.L) <= 1
    )
    assert objective(res.L, M - res.L, res.lam) == pytest.approx(
        min(np.linalg.norm(M), res.lam * abs(M).sum()), rel=1e-3
    )


# What comes and what goes

def test_types():
    L, S = planted(50, 40, 2)
    M = L + S
    want = robust_pca(M)
    for other in (M.tolist(), pd.DataFrame(M), np.asfortranarray(M), M.astype(object), np.ma.array(M)):
        res = robust_pca(other)
        assert (
            type(res.L) is np.ndarray and res.L.dtype == np.float64 and np.allclose(res.L, want.L, atol=1e-6)
        )
    whole = np.round(M*10).astype(int)
    assert (
        np.allclose(robust_pca(whole).L, robust_pca(whole.astype(float)).L)
        and robust_pca(torch.tensor(whole)).L.dtype == torch.float64
    )
    assert robust_pca(M.astype(np.float32)).L.dtype == np.float64
    for dtype, eps in (
        (torch.float64, 1e-6),
        (torch.float32, 1e-4),
        (torch.float16, 0.05),
        (torch.bfloat16, 0.3),
    ):
        T = torch.tensor(M, dtype=dtype, requires_grad=True)
        # rounded to so few digits it is no longer low-rank plus sparse, and slow
        res = robust_pca(T, gap_tol=1e-3 if eps < .01 else .02)
        assert res.L.dtype == res.S.dtype == dtype and not res.L.requires_grad and res.L.device == T.device
        assert ((res.L + res.S).double() - T.double()).norm() <= eps*T.double().norm()
    single = robust_pca(torch.tensor(M, dtype=torch.float32))
    assert apart(single.L.numpy(), L) < 1e-6 and ((single.S.numpy() != 0) == (S != 0)).all()

def test_changes_nothing():
    M = sum(planted(250, 220, 4))
    T, keep = torch.tensor(M), M.copy()
    np.random.seed(3); torch.manual_seed(3)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    a, b, c = robust_pca(M), robust_pca(T), robust_pca(M)
    assert (
        (M == keep).all()
        and torch.equal(T, torch.tensor(keep))
        and (np.random.get_state()[1] == states[0]).all()
        and torch.equal(torch.get_rng_state(), states[1])
    )
    assert (a.L == c.L).all() and (a.L == b.L.numpy()).all()
    zero = np.zeros((3, 2)); robust_pca(zero).L[0, 0] = 1
    assert zero[0, 0] == 0

@pytest.mark.cuda
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cuda(dtype):
    L, S = planted(260, 230, 8)
    res = robust_pca(torch.tensor(L + S, dtype=dtype, device='cuda'))
    assert res.L.device.type == res.S.device.type == 'cuda' and res.L.dtype == dtype and res.rank == 8
    assert apart(res.L.cpu().double().numpy(), L) < 1e-6 and ((res.S.cpu().numpy() != 0) == (S != 0)).all()


# Bad input

hole = np.ones((4, 3)); hole[2, 1] = np.nan
@pytest.mark.parametrize(
    'M, error, says',
    [
        (hole, ValueError, '1 of 12 entries are NaN or infinite, the first at row 2, column 1'),
        (torch.tensor([[1.0, float('inf')]]), ValueError, '1 of 2 entries'),
        ([1.0, 2.0], ValueError, r'shape \(2,\)'),
        (np.ones((2, 2, 2)), ValueError, r'shape \(2, 2, 2\)'),
        (3.0, ValueError, r'shape \(\)'),
        (np.ones((0, 3)), ValueError, 'empty'),
        (np.ones((3, 0)), ValueError, 'empty'),
        ([], ValueError, r'shape \(0,\)'),
        ([['a', 'b']], TypeError, 'not of <U1'),
        ([[1, 'b']], TypeError, 'real numbers'),
        (pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}), TypeError, 'text'),
        (np.array([[1.0, object()]], dtype=object), TypeError, 'no numbers'),
        ([[1, 2], [3]], ValueError, 'differ in length'),
        (None, TypeError, 'not NoneType'),
        ('matrix', TypeError, 'real numbers'),
        ({'a': 1}, TypeError, 'not dict'),
        (scipy.sparse.eye(3, format='csr'), TypeError, 'blanks are unknown, they are not zeros'),
        (scipy.sparse.coo_array(np.eye(3)), TypeError, r'toarray\(\)'),
        (np.array([[1.0, '2']], dtype=object), TypeError, 'entries that are text'),
        (pd.DataFrame({'a': [1.0, 2.0], 'b': ['3', '4']}), TypeError, 'text'),
        (np.ones((2, 2), complex), TypeError, 'complex'),
        (torch.ones(2, 2, dtype=torch.complex64), TypeError, 'complex'),
        (np.ones((2, 2), bool), TypeError, 'bool'),
        (torch.eye(3).to_sparse(), TypeError, 'to_dense'),
        (np.ma.array(np.ones((2, 2)), mask=[[1, 0], [0, 0]]), ValueError, '1 entries are masked'),
        ([[None, 1.0]], ValueError, 'NaN'),
    ],
)
def test_bad_matrices(M, error, says):
    with pytest.raises(error, match=says): robust_pca(M)

@pytest.mark.parametrize(
    'options, says',
    [
        (dict(lam=0), 'lam must be a number above 0, not 0'),
        (dict(lam=-1.0), 'lam'),
        (dict(lam=float('nan')), 'lam'),
        (dict(lam='1'), 'lam'),
        (dict(lam=True), 'lam'),
        (dict(lam=float('inf')), 'lam'),
        (dict(tol=0), 'tol must'),
        (dict(tol=None), 'tol must'),
        (dict(gap_tol=-1), 'gap_tol must'),
        (dict(max_iter=0), 'max_iter must be a whole number, at least 1, not 0'),
        (dict(max_iter=2.5), 'max_iter'),
        (dict(max_iter=True), 'max_iter'),
        (dict(max_iter=None), 'max_iter'),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(ValueError, match=says): robust_pca(np.ones((3, 3)), **options)
