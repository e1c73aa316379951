"LensKit's biased matrix factorization by alternating least squares."
from lenskit.als import BiasedMFScorer
from lenskit.batch import predict as predict_all
from lenskit.data import ItemListCollection, UserIDKey, from_interactions_df
from lenskit.pipeline import predict_pipeline
from lenskit.training import TrainingOptions


def load(train, valid):
    dataset = from_interactions_df(train.drop_duplicates(['user', 'item']), user_col='user', item_col='item')
    pairs = valid[['user', 'item']].rename(columns={'user': 'user_id', 'item': 'item_id'})
    test = ItemListCollection.from_df(pairs.drop_duplicates(), UserIDKey)
    return dataset, pairs, test


def fit(data, seed, **settings):
    dataset, _, _ = data
    model = predict_pipeline(BiasedMFScorer(**settings))
    model.train(dataset, TrainingOptions(rng=seed))
    return model


def predict(model, data):
    _, pairs, test = data
    predicted = predict_all(model, test, n_jobs=1).to_df()
    return pairs.merge(predicted, how='left', on=['user_id', 'item_id']).score.to_numpy()
