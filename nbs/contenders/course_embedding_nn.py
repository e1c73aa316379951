"fastai's own net, `EmbeddingNN`, by this course's recipe."
from fastai.collab import EmbeddingNN
from fastai.tabular.model import get_emb_sz

from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.training import recipes


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed, layers):
    recipe = recipes['fast']
    learn = recipe.learner(data, lambda u, i: EmbeddingNN(get_emb_sz(data), layers, y_range=(0, 5.5)), seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn)
    return learn.model


def predict(model, data, valid):
    return score(model, *data.train_ds.encode(valid).x.T)
