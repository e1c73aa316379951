"A number for each user and one for each item, added up: what is left of the models without their factors."
from dataclasses import replace

from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.progression import BiasOnly
from collab_course.training import recipes


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed, recipe='fast', decay=True, **changes):
    recipe = replace(recipes[recipe], **changes)
    learn = recipe.learner(data, BiasOnly, seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn, decay=decay)
    return learn.model


def predict(model, data, valid):
    return score(model, *data.train_ds.encode(valid).x.T)
