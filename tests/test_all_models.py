"Every model of every lesson answers in the same words."
import pytest, torch

from collab_course.interface import *
from collab_course.testing import *
from conftest import ALL_MODELS

each = pytest.mark.parametrize('name', ALL_MODELS)


@each
def test_every_model_passes_the_checks(name):
    make, kwargs = ALL_MODELS[name]
    check_model(make, **kwargs)


@pytest.mark.cuda
@each
def test_every_model_passes_the_checks_on_cuda(name):
    make, kwargs = ALL_MODELS[name]
    learn = check_model(make, device='cuda', **kwargs)
    assert score(learn.model, 1, 1).is_cuda


@each
def test_indices_in_a_state_have_bounds(name):
    "Whatever whole numbers of a state are looked up, their bounds are known, also in a model inside another"
    model = ALL_MODELS[name][0](checkerboard())
    whole = {k for k, v in model.state_dict().items() if v.dtype in (torch.int32, torch.int64)}
    assert whole - {k for k in whole if k.endswith('num_batches_tracked')} == set(index_bounds(model))


def test_a_model_around_another_keeps_its_bounds():
    model = ALL_MODELS['bell curve around SVD++'][0](checkerboard())
    assert set(index_bounds(model)) == {'model.history.items', 'model.history.start'}
