"Surprise's SVD, or its SVD++ where `implicit` is true."
from surprise import SVD, Dataset, Reader, SVDpp


def load(train, valid, rating_scale=(1, 5)):
    data = Dataset.load_from_df(train[['user', 'item', 'rating']], Reader(rating_scale=rating_scale))
    trainset = data.build_full_trainset()
    testset = [(user, item, None) for user, item in zip(valid.user, valid['item'])]
    return trainset, testset


def fit(data, seed, epochs=20, implicit=False, **settings):
    trainset, _ = data
    model = (SVDpp if implicit else SVD)(n_epochs=epochs, random_state=seed, **settings)
    model.fit(trainset)
    return model


def predict(model, data):
    _, testset = data
    return [p.est for p in model.test(testset)]
