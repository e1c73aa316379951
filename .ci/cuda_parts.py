"""The parts that a worker of `.ci/cuda.py` does: functions that yield results as dicts.

Everything is trained as the lessons train it, by the package's own recipes.
"""
import importlib.util
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from collab_course.benchmarks import contenders_folder, growth_ratings, machine, read_contenders
from collab_course.dot_product import DotProductBias
from collab_course.evaluation import item_split, ranking_metrics
from collab_course.history import HistoryDataLoaders
from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders, mse_flat
from collab_course.movielens import movielens
from collab_course.progression import progression, run_progression
from collab_course.ranking import EASE, ranking_learner, ranking_recipe
from collab_course.recommendation import Recommender
from collab_course.saving import load_recommender
from collab_course.svdpp import svdpp_learner, svdpp_recipe
from collab_course.synthetic import synthetic_ratings
from collab_course.training import recipes
from fastai.callback.fp16 import *  # noqa: F401 (`to_fp16`)

FOURTH = '4 + weight decay'


@dataclass
class Setting:
    "What a worker is asked"
    device: str   # 'cuda' or 'cpu'
    on: str       # 'device', or 'cpu' for what it is compared with
    seed: int
    small: bool   # Few made ratings
    folder: str   # For what workers pass on

    def recipe(self, recipe): return replace(recipe, n_epoch=1) if self.small else recipe

    def ratings(self):
        "ML-100K; or a few made ratings under the same names"
        if not self.small: return movielens(verbose=False).ratings
        made = synthetic_ratings(60, 40, 1_500).ratings
        films = made.rename(columns={'item': 'movie'}).assign(title='film ' + made['item'].astype(str))
        return films.assign(rating=made.rating.round().clip(1, 5))

    def loaders(self):
        return RatingsDataLoaders.from_df(self.ratings(), item_name='title', rating_name='rating',
                                          seed=self.seed, device=self.device)


# What is measured

@contextmanager
def measured(device):
    "A dict that gets the seconds, the peak memory and, on a card, how busy it was meanwhile"
    row, busy, done = {}, [], threading.Event()
    on_card = torch.device(device).type == 'cuda'
    def watch():
        with suppress(Exception):             # without nvidia-ml-py, or on a card that does not say it
            while not done.wait(.1): busy.append(torch.cuda.utilization())
    if on_card:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    try: yield row
    finally:
        if on_card: torch.cuda.synchronize()
        row['seconds'] = time.perf_counter() - start
        done.set()
        row['peak_mib'] = torch.cuda.max_memory_allocated()/2**20 if on_card else peak_mib()
        if busy: row['utilisation'] = sum(busy)/len(busy)


def peak_mib():
    "The peak memory of this process, where the system says it"
    try: lines = Path('/proc/self/status').read_text().splitlines()
    except OSError: return None
    return next((int(line.split()[1])/2**10 for line in lines if line.startswith('VmHWM')), None)


def fitted(learn, recipe, device):
    "Train by a recipe → what was measured, the validation loss among it"
    with measured(device) as row, learn.no_bar(), learn.no_logging(): recipe.fit(learn)
    return row | dict(mse=learn.recorder.values[-1][1])


def fourth(setting, recipe):
    return recipe.learner(setting.loaders(), lambda n_users, n_items: DotProductBias(n_users, n_items, 50),
                          setting.seed)


# The parts

def describe_machine(s):
    "Processor, versions, cards"
    cards = range(torch.cuda.device_count() if s.device != 'cpu' else 0)
    properties = [torch.cuda.get_device_properties(k) for k in cards]
    yield machine() | dict(cuda_version=torch.version.cuda, driver=driver(), cards=[
        dict(name=p.name, memory_gib=round(p.total_memory/2**30, 1), capability=f'{p.major}.{p.minor}')
        for p in properties])


def driver():
    "The version of NVIDIA's driver, where its own program says it"
    if not shutil.which('nvidia-smi'): return None
    asked = subprocess.run(['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
                           capture_output=True, text=True, timeout=20)
    return next(iter(asked.stdout.split()), None)


def progression_by(recipe, s):
    "The baselines and the five models"
    dls = s.loaders()
    for entry in progression:
        table = run_progression(dls, s.recipe(recipes[recipe]), [s.seed], entries=[entry], bar=False)
        row = table.set_index('model').loc[entry.model]
        measures = dict(mse=row.valid_mse, train_mse=row.train_mse, seconds=row.seconds)
        yield dict(model=entry.model) | {name: float(value) for name, value in measures.items()}


def sixth(s):
    "SVD++"
    recipe = s.recipe(svdpp_recipe)
    learn = svdpp_learner(s.loaders(), recipe=recipe, seed=s.seed)
    yield dict(model='SVD++') | fitted(learn, recipe, s.device)


def seventh(s):
    "The Bayesian model, where the package has it; it knows the times of the ratings"
    if importlib.util.find_spec('collab_course.bayes') is None:
        yield dict(note='collab_course.bayes is not there')
        return
    from collab_course.bayes import BayesianMF
    dls = s.loaders()
    with measured(s.device) as row:
        model = BayesianMF.from_dls(dls).fit(dls, n_sweeps=2 if s.small else 20)
    ds = dls.valid_ds
    x = ds.x if ds.time is None else torch.cat([ds.x, ds.time[:, None]], dim=1)
    with torch.no_grad(): predicted = model(x.to(dls.device)).cpu()
    yield dict(model='BayesianMF', mse=mse_flat(predicted, ds.y).item()) | row


def ranking(s):
    "EASE, which is solved, and Mult-DAE, which is trained: nDCG@10"
    ratings = s.ratings()
    _, valid = item_split(ratings.rename(columns={'movie': 'item'})[['user', 'item', 'rating']], seed=s.seed)
    pairs = ratings[['user', 'movie']]
    dls = HistoryDataLoaders.from_df(pairs, valid_idx=valid, seed=s.seed, device=s.device)
    rated = dls.train_ds.x.to(dls.device)
    with measured(s.device) as row: ease = EASE(dls.n_users, dls.n_items, rated)
    yield dict(model='EASE', nDCG=float(ranking_metrics(ease, dls)['nDCG'])) | row
    recipe = s.recipe(ranking_recipe)
    learn = ranking_learner(dls, recipe=recipe, seed=s.seed)
    row = fitted(learn, recipe, s.device)
    del row['mse']                                                            # it is a likelihood
    yield dict(model='Mult-DAE', nDCG=float(ranking_metrics(learn.model, dls)['nDCG'])) | row


def mixed(s):
    "Models 4 and 6 in mixed precision, as `fast` and `sixth` train them in float32"
    recipe = s.recipe(recipes['fast'])
    yield dict(model=FOURTH) | fitted(fourth(s, recipe).to_fp16(), recipe, s.device)
    recipe = s.recipe(svdpp_recipe)
    learn = svdpp_learner(s.loaders(), recipe=recipe, seed=s.seed).to_fp16()
    yield dict(model='SVD++') | fitted(learn, recipe, s.device)


def saving(s):
    "Train the fourth and the sixth model, save them, and leave some predictions"
    fast, one_epoch = s.recipe(recipes['fast']), replace(svdpp_recipe, n_epoch=1)
    learners = {'fourth': (fourth(s, fast), fast),
                'sixth': (svdpp_learner(s.loaders(), recipe=one_epoch, seed=s.seed), one_epoch)}
    for name, (learn, recipe) in learners.items():
        row = fitted(learn, recipe, s.device)
        rec = Recommender.from_learner(learn)
        rec.save(Path(s.folder)/name)
        yield dict(model=name, where=str(rec.device)) | row
        np.save(Path(s.folder)/f'{name}.npy', score(learn.model, *some_pairs(rec)).cpu().numpy())


def some_pairs(rec):
    users, items = len(rec.users), len(rec.items)
    return torch.arange(min(users, 50))[:, None], torch.arange(items)


def loading(s):
    "Load on the CPU what was saved on the device, and compare the predictions"
    for name in ('fourth', 'sixth'):
        said = Path(s.folder)/f'{name}.npy'
        while not said.exists(): time.sleep(.2)                               # the worker's limit ends this
        rec = load_recommender(Path(s.folder)/name)
        here = score(rec.model, *some_pairs(rec)).numpy()
        yield dict(model=name, where=str(rec.device), difference=float(np.abs(here - np.load(said)).max()))


def speed(s):
    "The fourth model by both recipes, alone on the machine and on one thread of the processor"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warm = replace(recipes['fast'], n_epoch=1, bs=4096)
    fitted(fourth(s, warm), warm, s.device)
    for name, recipe in recipes.items():
        recipe = s.recipe(recipe)
        row = fitted(fourth(s, recipe), recipe, s.device)
        yield dict(model=FOURTH, recipe=name, epochs=recipe.n_epoch) | row
    torch.set_num_threads(threads)


def made(s):
    "Make the ratings of `scale`; the worker that needs them finds them in the folder"
    if not growth_file(s).exists(): make_growth(s)
    yield dict(n=len(np.load(growth_file(s))['user']))


def growth_file(s): return Path(s.folder)/'growth.npz'


def make_growth(s):
    synthetic = growth_ratings(20_000 if s.small else 25_000_000)
    ratings = synthetic.ratings
    n_valid = min(100_000, len(ratings)//50)
    valid = ratings.iloc[-n_valid:]
    noise = valid.rating.to_numpy() - synthetic.expected(valid.user.to_numpy(), valid['item'].to_numpy())
    np.savez(growth_file(s).with_name('growth.part.npz'), **ratings, n_valid=n_valid,
             floor=float(np.mean(noise**2)))
    growth_file(s).with_name('growth.part.npz').rename(growth_file(s))


def scale(s):
    "25 million ratings, as lesson 15's contender trains on them: on the device five epochs, on the CPU one"
    if not growth_file(s).exists(): make_growth(s)
    with np.load(growth_file(s)) as f: columns, n_valid, floor = read_growth(f)
    ratings = pd.DataFrame(columns)
    train, valid = ratings.iloc[:-n_valid], ratings.iloc[-n_valid:]
    epochs = 5 if s.on == 'device' and not s.small else 1
    contender = growth_contender(epochs)
    few = dict(train=train.iloc[:2000], valid=valid.iloc[:200], seed=0)
    contender.run(few)                                                        # everything has run once
    given = dict(train=train, valid=valid, seed=0)
    with measured(s.device) as load: given['data'] = contender.call('load', given)
    with measured(s.device) as row: given['model'] = contender.call('fit', given)
    predicted = torch.as_tensor(contender.call('predict', given)).cpu().numpy()
    mse = float(np.mean((predicted - valid.rating.to_numpy())**2))
    yield dict(model='growth', n=len(ratings), epochs=epochs, epoch_s=row['seconds']/epochs, mse=mse,
               of_the_noise=mse/floor, load_s=load['seconds'], threads=torch.get_num_threads()) | row


def read_growth(f):
    return {k: f[k] for k in ('user', 'item', 'rating')}, int(f['n_valid']), float(f['floor'])


def growth_contender(epochs):
    "Lesson 15's contender and its settings, as its own runner calls it"
    contender = read_contenders('growth')[0]
    runner = file_as_module(contenders_folder()/'_run.py')
    return runner.Script(file_as_module(contender.file), contender.settings | dict(epochs=epochs))


def file_as_module(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two(s):
    "The fourth model in as many processes as were started; the first of them says what came out"
    from fastai.distributed import rank_distrib, teardown_distrib
    entry = next(e for e in progression if e.model == FOURTH)
    table = run_progression(s.loaders(), s.recipe(recipes['fast']), [s.seed], entries=[entry], bar=False)
    row = table.set_index('model').loc[FOURTH]
    if not rank_distrib(): yield dict(model=FOURTH, mse=float(row.valid_mse), seconds=float(row.seconds))
    teardown_distrib()


PARTS = dict(machine=describe_machine, saving=saving, loading=loading, speed=speed, made=made, scale=scale,
             fast=partial(progression_by, 'fast'), original=partial(progression_by, 'original'), sixth=sixth,
             seventh=seventh, ranking=ranking, mixed=mixed, two=two)
