"Factors and biases without a sigmoid; batches grow with the ratings, and gradients are lists of rows."
import threading
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from fastai.learner import Learner
from fastai.torch_core import set_seed

from collab_course.dot_product import DotProductBias
from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.training import RowAdam, sparse_rows

report = {}


def load(train, seed):
    mean = train.rating.mean()
    bs = max(512, len(train)//244)
    dls = RatingsDataLoaders.from_df(train.assign(rating=train.rating - mean), valid_pct=0, bs=bs, seed=seed)
    return dls, mean


def factors_and_biases(model):
    parameters = list(model.parameters())
    return [[p for p in parameters if p.shape[1] > 1], [p for p in parameters if p.shape[1] == 1]]


@contextmanager
def watched():
    "Put into `report` how busy the CUDA device is meanwhile, and its peak memory"
    busy, done = [], threading.Event()

    def watch():
        while not done.wait(.2):
            busy.append(torch.cuda.utilization())
    threading.Thread(target=watch, daemon=True).start()
    yield
    torch.cuda.synchronize()
    done.set()
    if busy:                        # nothing can be asked without nvidia-ml-py
        report['utilisation'] = sum(busy)/len(busy)
    report['peak_mib'] = torch.cuda.max_memory_allocated()/2**20


def fit(data, seed, epochs, eps=1e-7, watch=False):
    dls, _ = data
    set_seed(seed)
    model = sparse_rows(DotProductBias(dls.n_users, dls.n_items, 50, None))
    learn = Learner(dls, model, opt_func=partial(RowAdam, eps=eps), splitter=factors_and_biases)
    with watched() if watch else nullcontext(), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 0.01, wd=[0.6, 0.01])
    return model


def predict(model, data, valid):
    dls, mean = data
    return score(model, *dls.train_ds.encode(valid).x.T) + mean
