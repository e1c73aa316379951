"Surprise's baseline: a number for each user and one for each item."
from surprise import BaselineOnly, Dataset, Reader


def load(train, valid):
    data = Dataset.load_from_df(train[['user', 'item', 'rating']], Reader(rating_scale=(1, 5)))
    trainset = data.build_full_trainset()
    testset = [(user, item, None) for user, item in zip(valid.user, valid['item'])]
    return trainset, testset


def fit(data):
    trainset, _ = data
    model = BaselineOnly(verbose=False)
    model.fit(trainset)
    return model


def predict(model, data):
    _, testset = data
    return [p.est for p in model.test(testset)]
