"Model 4, which learns ratings, asked for lists."
import torch

from collab_course.dot_product import DotProductBias
from collab_course.evaluation import rank_scores
from collab_course.loaders import RatingsDataLoaders
from collab_course.training import recipes


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed):
    recipe = recipes['fast']
    learn = recipe.learner(data, lambda u, i: DotProductBias(u, i, recipe.n_factors), seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn)
    return learn.model


def predict(model, data):
    users = torch.arange(1, data.n_users)
    return rank_scores(model, users)[:, 1:]
