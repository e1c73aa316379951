"The models 1 to 5: `kind` and `y_range` say which, `decay` whether it gets the recipe's weight decay."
from dataclasses import replace

from collab_course import dot_product
from collab_course.interface import score
from collab_course.loaders import RatingsDataLoaders
from collab_course.training import recipes


def load(train, seed):
    return RatingsDataLoaders.from_df(train, valid_pct=0, seed=seed)


def fit(data, seed, kind='DotProductBias', y_range=(0, 5.5), recipe='fast', decay=True, **changes):
    recipe, model = replace(recipes[recipe], **changes), getattr(dot_product, kind)
    learn = recipe.learner(data, lambda u, i: model(u, i, recipe.n_factors, y_range), seed)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn, decay=decay)
    return learn.model


def predict(model, data, valid):
    return score(model, *data.train_ds.encode(valid).x.T)
