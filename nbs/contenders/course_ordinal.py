"Ratings as ordered classes, on factors and biases."
from dataclasses import replace

from collab_course.cross_entropy import OrdinalDotProduct, class_learner, ordinal_recipe
from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed, **changes):
    recipe = replace(ordinal_recipe, **changes)
    learn = class_learner(data, OrdinalDotProduct, seed=seed, recipe=recipe)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn)
    return learn.model


def predict(model, data, valid):
    return score(model, *data.train_ds.encode(valid).x.T)
