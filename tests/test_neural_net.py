"Neural nets on concatenated embeddings."
import pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.neural_net import *
from collab_course.training import *
from collab_course.progression import *

make = lambda d: CollabNN((d.n_users, 10), (d.n_items, 12), (.5, 5.5), 40)


def test_contract(): check_model(make)


def test_contract_without_range():
    check_model(lambda d: CollabNN((d.n_users, 10), (d.n_items, 12), None), wd=0.0)


@pytest.mark.cuda
def test_contract_on_cuda(): assert factors(check_model(make, device='cuda').model).is_cuda


def test_formula_and_defaults():
    net, x = CollabNN((5, 3), (4, 2)), torch.tensor([[1, 2], [0, 0], [4, 3]])
    assert net.y_range == (0, 5.5) and net.n_act == 100 and sizes(net) == (5, 4)
    both = torch.cat([factors(net, 'user')[x[:, 0]], factors(net)[x[:, 1]]], 1)
    first, last = net.layers[0], net.layers[2]
    want = 5.5*torch.sigmoid((both @ first.weight.T + first.bias).relu() @ last.weight.T + last.bias)
    assert (
        net(x).shape == (3, 1)
        and torch.allclose(net(x), want, atol=1e-6)
        and (first.in_features, first.out_features) == (5, 100)
    )
    assert factors(net).shape == (4, 2) and factors(net, 'user').shape == (5, 3)
    with pytest.raises(NotInModel): biases(net)
    with pytest.raises(IndexError): score(net, 5, 1)


def test_is_rebuilt_from_its_kind():
    net = CollabNN((5, 3), (4, 2), (1, 6), 7)
    name, args = kind_of(net)
    assert (name, args) == ('CollabNN', dict(user_sz=[5, 3], item_sz=[4, 2], y_range=[1, 6], n_act=7))
    copy = rebuild(name, args); copy.load_state_dict(net.state_dict())
    assert torch.equal(score(copy, range(5), 1), score(net, range(5), 1))


def test_sizes_by_the_rule(dls):
    by_rule, ours = get_emb_sz(dls), [e.make(dls.n_users, dls.n_items, 50, (0, 5.5)) for e in nets]
    assert by_rule == [(944, 74), (1665, 102)]
    assert [tuple(factors(ours[0], w).shape) for w in ('user', 'item')] == by_rule
    assert str(ours[1]) == str(collab_learner(dls, use_nn=True, y_range=(0, 5.5), layers=[100, 50]).model)


def test_the_net_is_worse_on_real_ratings(dls):
    "As its chapter says, on one split: past the biases, and far from model 4"
    table = (
        run_progression(dls, 'fast', entries=[progression[0], progression[4], *nets], bar=False)
        .set_index('model')
        .valid_mse
    )
    assert .85 < table['CollabNN'] < .89 and .84 < table['net [100, 50]'] < .88
    assert (
        table['4 + weight decay'] + 0.02 < min(table[e.model] for e in nets)
        and table['CollabNN'] < table['biases alone']
    )
