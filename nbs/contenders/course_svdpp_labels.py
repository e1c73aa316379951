"The sixth model with MovieLens' labels of films (genres, year) and users (age, gender, occupation)."
import pandas as pd

from collab_course.interface import score
from collab_course.labels import side_labels
from collab_course.loaders import RatingsDataLoaders
from collab_course.movielens import MovieLens
from collab_course.svdpp import svdpp_learner, svdpp_recipe


def load(train, valid, seed):
    ratings = pd.concat([train, valid], ignore_index=True)
    valid_rows = range(len(train), len(ratings))
    return RatingsDataLoaders.from_df(ratings, valid_idx=valid_rows, seed=seed)


def fit(data, seed, train, items, users=None):
    ml = MovieLens('ml-100k', train, items, users)
    labels = side_labels(data, ml)
    learn = svdpp_learner(data, labels, seed=seed)
    with learn.no_bar(), learn.no_logging():
        svdpp_recipe.fit(learn)
    return learn.model


def predict(model, data):
    users, items = data.valid_ds.x.unbind(1)
    return score(model, users, items)
