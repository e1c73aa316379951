"cmfrec: alternating least squares with biases; `implicit` adds who rated what as a second matrix."
import cmfrec


def load(train):
    return train.rename(columns={'user': 'UserId', 'item': 'ItemId', 'rating': 'Rating'})


def fit(data, seed, implicit=False, epochs=10, **settings):
    model = cmfrec.CMF(niter=epochs, add_implicit_features=implicit, random_state=seed, verbose=False,
                       **settings)
    return model.fit(data[['UserId', 'ItemId', 'Rating']])


def predict(model, valid):
    return model.predict(valid.user, valid['item'])
