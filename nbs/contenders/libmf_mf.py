"""LIBMF: stochastic gradient descent in blocks, one thread each. Its Python package's `predict` reads pairs
column by column where it is given rows, so the factors are multiplied here."""
import numpy as np
from libmf import mf


def load(train):
    mean = train.rating.mean()
    triples = train.assign(rating=train.rating - mean)[['user', 'item', 'rating']]
    return np.ascontiguousarray(triples, dtype=np.float32), mean          # LIBMF reads row after row


def fit(data, k, epochs, eta, l2, threads=2):
    triples, _ = data
    model = mf.MF(k=k, nr_iters=epochs, eta=eta, lambda_p2=l2, lambda_q2=l2, lambda_p1=0., lambda_q1=0.,
                  nr_threads=threads, quiet=True)
    model.fit(triples)
    return model


def predict(model, data, valid):
    _, mean = data
    P, Q = model.p_factors(), model.q_factors()
    known = (valid.user < len(P)) & (valid['item'] < len(Q))
    u, i = valid.user.where(known, 0).to_numpy(), valid['item'].where(known, 0).to_numpy()
    rating = np.einsum('nk,nk->n', P[u], Q[i])
    return mean + np.where(known & np.isfinite(rating), rating, 0)
