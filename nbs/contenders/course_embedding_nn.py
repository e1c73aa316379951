"fastai's own net, `EmbeddingNN`, by this course's recipe."
import pandas as pd
from fastai.collab import EmbeddingNN
from fastai.tabular.model import get_emb_sz

from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.training import recipes


def load(train, valid, seed):
    ratings = pd.concat([train, valid], ignore_index=True)
    valid_rows = range(len(train), len(ratings))
    return RatingsDataLoaders.from_df(ratings, valid_idx=valid_rows, seed=seed)


def fit(data, seed, layers):
    recipe = recipes['fast']
    learn = recipe.learner(data, lambda u, i: EmbeddingNN(get_emb_sz(data), layers, y_range=(0, 5.5)), seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn)
    return learn.model


def predict(model, data):
    return score(model, *data.valid_ds.x.T)
