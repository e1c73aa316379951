// What a model says of somebody new, as collab_course.recommendation does it: nothing here touches the page.

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

// a table of whole numbers of 16 bits, each column with a scale of its own
function unpack({shape: [n, d], scale, data}) {
  const whole = new Int16Array(bytesOf(data).buffer), table = new Float64Array(n*d);
  for (let k = 0; k < table.length; k++) table[k] = whole[k]*scale[k % d];
  return {n, d, row: k => table.subarray(k*d, k*d + d)};
}

// a symmetric matrix from its upper triangle, written as numbers of 32 bits
function unpackSymmetric({size, data}) {
  const upper = new Float32Array(bytesOf(data).buffer), res = new Float64Array(size*size);
  for (let i = 0, k = 0; i < size; i++) for (let j = i; j < size; j++, k++) res[i*size + j] = res[j*size + i] = upper[k];
  return res;
}

const dot = (a, b) => {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k]*b[k];
  return sum;
};

// L with L Lᵀ = A, both d × d, row by row
function cholesky(A, d) {
  const L = new Float64Array(d*d);
  for (let i = 0; i < d; i++) for (let j = 0; j <= i; j++) {
    let sum = A[i*d + j];
    for (let k = 0; k < j; k++) sum -= L[i*d + k]*L[j*d + k];
    L[i*d + j] = i === j ? Math.sqrt(sum) : sum/L[j*d + j];
  }
  return L;
}

// x with L Lᵀ x = b
function solveWith(L, b) {
  const d = b.length, x = Float64Array.from(b);
  for (let i = 0; i < d; i++) {
    for (let k = 0; k < i; k++) x[i] -= L[i*d + k]*x[k];
    x[i] /= L[i*d + i];
  }
  for (let i = d - 1; i >= 0; i--) {
    for (let k = i + 1; k < d; k++) x[i] -= L[k*d + i]*x[k];
    x[i] /= L[i*d + i];
  }
  return x;
}

const times = (A, x) => {
  const d = x.length, res = new Float64Array(d);
  for (let i = 0; i < d; i++) res[i] = dot(A.subarray(i*d, i*d + d), x);
  return res;
};

// the sigmoid into `range`, and its slope
function ratingOf(z, range) {
  if (!range) return [z, 1];
  const share = 1/(1 + Math.exp(-z)), width = range[1] - range[0];
  return [range[0] + width*share, width*share*(1 - share)];
}

// The score is a sigmoid of factors · factors + biases. Somebody new is the w with the least
// Σ(rating − f(a·w + offset))²/noise + (w − mean)ᵀ precision (w − mean): Gauss-Newton, damped where it must be.
// A model that knows how unsure its items are (`unsure`) adds Σ E[(what they may be off · w)²]/noise.
function dotModel(m) {
  const items = unpack(m.items), implicit = m.implicit && unpack(m.implicit), k = items.d - 1;
  const d = m.mean.length, prior = unpackSymmetric(m.precision), priorRoot = cholesky(prior, d);
  const extended = Array.from({length: items.n}, (_, i) => {      // an item's factors and a one, for the bias
    const row = Float64Array.from(items.row(i));
    row[k] = 1;
    return row;
  });
  const own = extended.map(row => row.subarray(0, d));
  const bias = i => items.row(i)[k];
  const gram = average(own);                                       // for the next question
  const unsure = m.unsure && {of: unpack(m.unsure.of), parts: unpack(m.unsure.parts)};

  // [C, c]: covariance of an item's factors, and that of its factors with its bias; nothing is unsure of the one
  function doubt(i) {
    const C = new Float64Array(d*d), c = new Float64Array(d), of = unsure.of.row(i);
    for (let a = 0, t = 0; a < k; a++) for (let b = a; b <= k; b++, t++) {
      const value = dot(of, unsure.parts.row(t));
      if (b === k) c[a] = value;
      else C[a*d + b] = C[b*d + a] = value;
    }
    return [C, c];
  }
  const pullOf = (row, w) => times(row.C, w.map((v, c) => v + row.base[c])).map((v, c) => v + row.c[c]);

  function average(rows) {
    const res = new Float64Array(d*d);
    for (const row of rows) for (let i = 0; i < d; i++) for (let j = 0; j < d; j++)
      res[i*d + j] += row[i]*row[j]/rows.length;
    return res;
  }

  function given(rated) {
    const res = Float64Array.from(m.given);
    if (implicit) for (const i of new Set(rated)) {
      const row = implicit.row(i), share = new Set(rated).size**-.5;
      for (let c = 0; c <= k; c++) res[c] += row[c]*share;
    }
    return res;
  }

  function doubtCost(row, w) {
    if (!unsure) return 0;
    const full = w.map((v, c) => v + row.base[c]);
    return dot(full, times(row.C, full)) + 2*dot(row.c, full);
  }

  const cost = (w, rows) => {
    const off = w.map((v, c) => v - m.mean[c]);
    return dot(off, times(prior, off)) + rows.reduce((sum, row) =>
      sum + ((row.rating - ratingOf(dot(row.a, w) + row.offset, m.range)[0])**2 + doubtCost(row, w))/m.noise, 0);
  };

  function normal(w, rows) {                                       // curvature and descent at w
    const H = Float64Array.from(prior), g = times(prior, w.map((v, c) => m.mean[c] - v));
    for (const row of rows) {
      const [f, slope] = ratingOf(dot(row.a, w) + row.offset, m.range);
      const pull = slope*(row.rating - f)/m.noise, weight = slope*slope/m.noise;
      for (let i = 0; i < d; i++) {
        g[i] += row.a[i]*pull;
        for (let j = 0; j < d; j++) H[i*d + j] += weight*row.a[i]*row.a[j];
      }
      if (unsure) {
        pullOf(row, w).forEach((v, i) => { g[i] -= v/m.noise; });
        row.C.forEach((v, ij) => { H[ij] += v/m.noise; });
      }
    }
    return [H, g];
  }

  function minimum(rows) {
    let w = Float64Array.from(m.mean), least = cost(w, rows), damping = 0;
    for (let step = 0; step < 200; step++) {
      const [H, g] = normal(w, rows);
      for (let i = 0; i < d; i++) H[i*d + i] *= 1 + damping;
      const move = solveWith(cholesky(H, d), g), next = w.map((v, c) => v + move[c]), now = cost(next, rows);
      if (now > least*(1 + 1e-12)) {
        damping = Math.max(1e-3, damping*10);
        continue;
      }
      w = next;
      least = now;
      damping = damping > 1e-6 ? damping/10 : 0;
      if (Math.max(...move.map(Math.abs)) < 1e-10) break;
    }
    return w;
  }

  function solve(rated, ratings) {
    const base = given(rated);
    const rows = rated.map((i, r) => ({item: i, rating: ratings[r], a: own[i],
                                       offset: bias(i) + dot(extended[i], base)}));
    if (unsure) for (const row of rows) [row.base, [row.C, row.c]] = [base, doubt(row.item)];
    const w = minimum(rows);
    for (const row of rows) {
      row.z = dot(row.a, w) + row.offset;
      const [f, slope] = ratingOf(row.z, m.range);
      row.pull = row.a.map(v => v*slope*(row.rating - f)/m.noise);
      if (unsure) pullOf(row, w).forEach((v, i) => { row.pull[i] -= v/m.noise; });
    }
    const full = base.map((v, c) => v + (c < d ? w[c] : 0));
    const [H] = normal(w, rows), root = cholesky(H, d);
    const z = extended.map((row, i) => dot(row, full) + bias(i));
    return {rows, full, z, root, scores: z.map(v => ratingOf(v, m.range)[0]), vector: full.slice(0, k)};
  }

  // At the minimum w − mean = precision⁻¹ Σ pull, pull = aᵢ f′(rating − f)/noise: what each adds to z of item j.
  // In stars: the secant from what somebody would get who rated nothing.
  function reasons(state, j) {
    const mine = solveWith(priorRoot, own[j]), share = state.rows.length**-.5;
    const shifts = state.rows.map(row => dot(mine, row.pull)
      + (implicit ? dot(extended[j], implicit.row(row.item))*share : 0));
    const z = dot(extended[j], Float64Array.from(m.given)) + bias(j) + dot(own[j], m.mean);
    const [before, tangent] = ratingOf(z, m.range), all = state.z[j] - z;
    const slope = Math.abs(all) < 1e-9 ? tangent : (state.scores[j] - before)/all;
    return {before, pushes: state.rows.map((row, r) => ({item: row.item, push: shifts[r]*slope}))};
  }

  // how far a rating of item j may lie from its prediction: a standard deviation
  function spread(state, j) {
    return Math.sqrt(m.noise + dot(own[j], solveWith(state.root, own[j])) + m.variance[j]);
  }

  // how much an answer about item j would make all predictions surer
  function gain(state, j) {
    const slope2 = ratingOf(state.z[j], m.range)[1]**2, reach = solveWith(state.root, own[j]);
    const mine = m.bars ? spread(state, j)**2 : m.noise + slope2*dot(own[j], reach);
    return slope2*dot(reach, times(gram, reach))/mine;
  }
  return {solve, reasons, spread: m.bars ? spread : null, gain};
}

// EASE: the weight of i for j is −Q[i, j] √(P[i, i]/P[j, j]) with a symmetric Q, of which there is the upper triangle
function easeModel(m) {
  const n = m.root.length, packed = new Int16Array(bytesOf(m.weights.data).buffer);
  const weight = (i, j) => {
    if (i === j) return 0;
    const [a, b] = i < j ? [i, j] : [j, i];
    return packed[a*n - a*(a + 1)/2 + b - a - 1]*m.weights.scale*m.root[i]/m.root[j];
  };
  function solve(rated) {
    const scores = Array.from({length: n}, (_, j) => rated.reduce((sum, i) => sum + weight(i, j), 0));
    return {rated, scores};
  }
  const reasons = (state, j) => ({before: 0, pushes: state.rated.map(i => ({item: i, push: weight(i, j)}))});
  return {solve, reasons};
}

// Mult-DAE: somebody is tanh of the mean of what each item says
function daeModel(m) {
  const items = unpack(m.items), says = unpack(m.says), k = says.d;
  function vector(rated) {
    const sum = new Float64Array(k);
    for (const i of rated) says.row(i).forEach((v, c) => { sum[c] += v/rated.length; });
    return sum.map(Math.tanh);
  }
  const score = (j, v) => dot(items.row(j).subarray(0, k), v) + items.row(j)[k];
  function solve(rated) {
    const v = vector(rated);
    return {rated, vector: v, scores: Array.from({length: items.n}, (_, j) => score(j, v))};
  }
  // what would be missing without each
  const reasons = (state, j) => ({before: score(j, vector([])), pushes: state.rated.map(i => ({
    item: i, push: state.scores[j] - score(j, vector(state.rated.filter(other => other !== i)))}))});
  return {solve, reasons};
}

const modelOf = m => ({dot: dotModel, ease: easeModel, dae: daeModel})[m.kind](m);
