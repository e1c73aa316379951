"Cornac's matrix factorization with biases."
import cornac


def load(train, seed):
    return cornac.data.Dataset.from_uir(list(train.itertuples(index=False, name=None)), seed=seed)


def fit(data, seed, epochs, **settings):
    return cornac.models.MF(max_iter=epochs, use_bias=True, seed=seed, **settings).fit(data)


def predict(model, data, valid):
    users = [data.uid_map.get(user, data.num_users) for user in valid.user]
    items = [data.iid_map.get(item, data.num_items) for item in valid['item']]
    return [model.rate(user, item) for user, item in zip(users, items)]
