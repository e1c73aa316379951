"Models, and what every model answers."
import pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from collab_course.dot_product import *
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.progression import BiasOnly

R = (.5, 5.5)
MODELS = {
    'dot': lambda d: DotProduct(d.n_users, d.n_items, 4),
    'dot, range': lambda d: DotProduct(d.n_users, d.n_items, 4, R),
    'bias': lambda d: DotProductBias(d.n_users, d.n_items, 4, R),
    'bias, no range': lambda d: DotProductBias(d.n_users, d.n_items, 4, None),
    'scratch': lambda d: DotProductBiasScratch(d.n_users, d.n_items, 4, R),
    'fastai, net': lambda d: EmbeddingNN(get_emb_sz(d), [20], y_range=R),
    'fastai': lambda d: EmbeddingDotBias.from_classes(4, d.classes, y_range=R),
}


def test_contract_catches():
    "Each promise of the contract can be broken, and is then named"
    def broken(name, **methods): return type(name, (DotProductBias,), methods)
    def use(cls, words):
        saveable(cls)
        with pytest.raises(AssertionError, match=words):
            check_model(lambda d: cls(d.n_users, d.n_items, 4, R), n_epoch=2, right=0)

    def drift(self, x): self.item_biases.weight.data.add_(.1); return DotProductBias.forward(self, x)
    def rolls(self, x): return DotProductBias.forward(self, x) + torch.rand(())*1e-3
    def mixes(self, x): return DotProductBias.forward(self, x) + x[:, :1].float().mean()*.01
    def nans(self, x): return DotProductBias.forward(self, x) + torch.where(x[:, :1] == 0, torch.nan, 0.)
    use(broken('Drifts', forward=drift), 'changed the numbers')
    use(broken('Rolls', forward=rolls), 'used the random generator')
    use(broken('Mixes', forward=mixes), 'must not depend on what else')
    use(broken('SaysNaN', forward=nans), 'finite rating')
    with pytest.raises(AssertionError, match='right side'): check_model(MODELS['bias'], n_epoch=1)
    class Switches(DotProductBias):
        def biases(self, which='item'):
            self.eval()
            return self.item_biases.weight
    use(Switches, 'changed the mode')
    class Short(DotProductBias):
        def biases(self, which='item'): return self.item_biases.weight[1:]
    use(Short, 'must have a row for each')
    class Forgets(DotProductBias):
        # not its range
        def arguments(self): return dict(n_users=self.n_users, n_items=self.n_items, n_factors=self.n_factors)
    use(Forgets, 'same ratings')


def test_an_answer_is_a_copy():
    class Shares(DotProductBias):
        def factors(self, which='item'):
            return (self.item_factors if which == 'item' else self.user_factors).weight.data

    m = Shares(5, 4, 3)
    before = m.item_factors.weight.clone()
    factors(m).add_(1.)
    assert torch.equal(m.item_factors.weight, before)


def test_shapes_and_formulas():
    x = torch.tensor([[1, 2], [0, 0], [4, 3]])
    for model in (
        DotProduct(5, 4, 3),
        DotProductBias(5, 4, 3),
        DotProductBiasScratch(5, 4, 3),
        BiasOnly(5, 4),
    ):
        out = model(x)
        assert out.numel() == 3 and out.shape[0] == 3
        z = (
            (factors(model, 'user')[x[:, 0]] * factors(model)[x[:, 1]]).sum(1)
            if not isinstance(model, BiasOnly)
            else 0
        )
        if not isinstance(model, DotProduct): z = z + biases(model, 'user')[x[:, 0]] + biases(model)[x[:, 1]]
        want = z if model.y_range is None else 5.5*torch.sigmoid(z)
        assert torch.allclose(out.flatten(), want, atol=1e-6) and torch.allclose(
            score(model, x[:, 0], x[:, 1]), want, atol=1e-6
        )


def test_originals_order_of_arguments():
    assert DotProduct(5, 4, 3).y_range is None and DotProductBias(5, 4, 3).y_range == DotProductBiasScratch(
        5, 4, 3
    ).y_range == (0, 5.5)
    assert create_params([7, 2]).shape == (7, 2) and isinstance(create_params([1]), nn.Parameter)


def test_no_parameter_is_exempt_from_decay():
    "fastai leaves parameters called `bias` out of weight decay"
    for name, make in MODELS.items():
        if 'net' not in name:
            assert not [n for n, _ in make(checkerboard()).named_parameters() if n.split('.')[-1] == 'bias']


def test_only_the_batch_gets_gradients():
    model = DotProductBias(6, 5, 3); model(torch.tensor([[2, 1], [4, 1]])).sum().backward()
    assert model.user_factors.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 4]
    assert model.item_biases.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1]


def test_questions_that_have_no_answer():
    m = DotProduct(5, 4, 3)
    with pytest.raises(NotInModel, match='DotProduct has no biases'): biases(m)
    with pytest.raises(NotInModel, match='no factors'): factors(BiasOnly(5, 4))
    with pytest.raises(NotInModel, match='not a model'): score('model', 1, 1)
    with pytest.raises(ValueError, match="'user' or 'item', not 'genre'"): factors(m, 'genre')
    with pytest.raises(NotInModel, match='not known to be loaded again'): kind_of(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='known are'): rebuild('x', {})
    with pytest.raises(ValueError, match="'DotProduct' is taken by"):
        saveable(type('DotProduct', (DotProductBias,), {}))
    # a subclass is not its parent
    with pytest.raises(NotInModel): kind_of(type('Child', (DotProduct,), {})(5, 4, 3))


def test_score_in_blocks(monkeypatch):
    from collab_course import interface
    m = DotProductBias(50, 40, 3)
    whole = score(m, torch.arange(50)[:, None], torch.arange(40))
    monkeypatch.setattr(interface, '_block', 7)
    assert torch.allclose(score(m, torch.arange(50)[:, None], torch.arange(40)), whole, atol=1e-6)


def test_indices_of_every_kind():
    import pandas as pd
    m = DotProductBias(5, 4, 3)
    want = score(m, [1, 2], [3, 3])
    for idx in (
        (1, 2),
        np.array([1, 2]),
        torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.int32),
        pd.Series([1, 2], index=[5, 6]),
        range(1, 3),
    ):
        assert torch.equal(score(m, idx, 3), want)


@pytest.mark.cuda
def test_indices_of_mixed_devices():
    m = DotProductBias(5, 4, 3).cuda()
    assert torch.equal(score(m, torch.tensor(1).cuda(), range(4)), score(m, 1, torch.arange(4)))


@pytest.mark.parametrize(
    'kw',
    [
        dict(layers=[10]),
        dict(layers=[10, 5], ps=[0.1, 0.2], y_range=(0, 5.5)),
        dict(layers=[7], use_bn=False, embed_p=0.1),
        dict(layers=[7], bn_final=True, lin_first=False),
    ],
)
def test_fastais_net_is_rebuilt(kw):
    net = EmbeddingNN([(5, 3), (4, 2)], **kw)
    copy = rebuild(*kind_of(net))
    copy.load_state_dict(net.state_dict())
    assert str(copy) == str(net) and torch.equal(score(copy, range(5), 1), score(net, range(5), 1))


def test_to_rating_is_used():
    class Logits(DotProductBias):
        def forward(self, x): return super().forward(x).expand(-1, 5)
        def to_rating(self, out): return out.sum(1)
    m = Logits(5, 4, 3)
    assert score(m, 1, [1, 2]).shape == (2,) and torch.allclose(
        score(m, 1, 2), 5 * DotProductBias.forward(m, torch.tensor([[1, 2]]))[0, 0]
    )


def test_fastais_net_can_be_asked(dls):
    learn = collab_learner(dls, use_nn=True, layers=[8], y_range=(0, 5.5))
    assert score(learn.model, 1, range(5)).shape == (5,) and factors(learn.model).shape == (1665, 102)
    with pytest.raises(NotInModel): biases(learn.model)
    with pytest.raises(IndexError): score(learn.model, 944, 1)
