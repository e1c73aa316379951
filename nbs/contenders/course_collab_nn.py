"The net of the book: the user's and the item's factors, one after the other, into a hidden layer."
from fastai.tabular.model import get_emb_sz

from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.neural_net import CollabNN
from collab_course.training import recipes


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed):
    recipe = recipes['fast']
    learn = recipe.learner(data, lambda u, i: CollabNN(*get_emb_sz(data)), seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn, decay=False)
    return learn.model


def predict(model, data, valid):
    return score(model, *data.train_ds.encode(valid).x.T)
