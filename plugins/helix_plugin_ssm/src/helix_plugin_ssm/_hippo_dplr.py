"""Discretised systems x_t = Ā x_{t-1} + B̄ u_t whose A is diagonal plus low rank, for every channel at once.

A = diag(λ) - P P* over N/2 conjugate pairs of states. A state is the real vector [Re x; Im x] of N numbers; in these
coordinates A is a real matrix, normal but for a symmetric rank-one term, and no power of Ā grows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any


def hippo_legs(N: int) -> tuple[np.ndarray, np.ndarray]:
    """A (N, N) and B (N,) that project a signal's past on Legendre polynomials (HiPPO-LegS).

    A[n, k] = -sqrt((2n+1)(2k+1)) below the diagonal and -(n+1) on it; B[n] = sqrt(2n+1).
    Source: Gu, Dao, Ermon, Rudra and Ré, HiPPO: Recurrent Memory with Optimal Polynomial Projections, 2020.
    """
    root = np.sqrt(2 * np.arange(N) + 1.0)
    return -(np.tril(np.outer(root, root), -1) + np.diag(np.arange(N) + 1.0)), root


@functools.lru_cache(maxsize=4)
def hippo_dplr(N: int) -> tuple[np.ndarray, np.ndarray]:
    """HiPPO-LegS of even size N as λ and P, both (N/2,), of one state of every conjugate pair; P is real and B = √2 P.

    A + p pᵀ with p[n] = sqrt(n + 1/2) is -1/2 plus a skew-symmetric matrix: its eigenvectors are orthonormal. Their
    phases are free, and chosen so that P is positive.
    """
    A, B = hippo_legs(N)
    p = B / np.sqrt(2)
    skew = A + np.outer(p, p) + 0.5 * np.eye(N)
    frequency, vectors = np.linalg.eigh(-1j * skew)
    half = frequency > 0
    return -0.5 + 1j * frequency[half], abs(vectors[:, half].conj().T @ p)


@dataclass
class DPLR:
    """A by the bilinear rule: Ā = 2 M - 1 and B̄ = Δ M B with M = (1 - Δ/2 A)⁻¹, by Woodbury's identity.

    re, im (D, n)       e = 1 / (1 - Δ/2 λ)
    less_re, less_im    e - 1, without cancellation: Ā - 1 is small, and keeps its digits only by itself
    p, q, r (D, 2n)     P, e P and ē P as real vectors
    factor (D, 1)       Δ / (1 + Δ Re P* e P): Δ, not Δ/2, for every state stands for a pair
    """

    xp: Any
    re: Array
    im: Array
    less_re: Array
    less_im: Array
    p: Array
    q: Array
    r: Array
    factor: Array

    @staticmethod
    def bilinear(xp: Any, dt: Array, re: Array, im: Array, P: Array) -> DPLR:
        """dt (D,), λ = re + i im (D, n), P (D, n, 2)."""
        h = 0.5 * dt[:, None]
        a, b = 1 - h * re, h * im
        size = a * a + b * b
        e_re, e_im, p_re, p_im = a / size, b / size, P[..., 0], P[..., 1]
        q = xp.concat([e_re * p_re - e_im * p_im, e_re * p_im + e_im * p_re], axis=-1)
        r = xp.concat([e_re * p_re + e_im * p_im, e_re * p_im - e_im * p_re], axis=-1)
        p = xp.concat([p_re, p_im], axis=-1)
        factor = 2 * h / (1 + 2 * h * xp.sum(p * q, axis=-1, keepdims=True))
        return DPLR(xp, e_re, e_im, (h * re * a - b * b) / size, b / size, p, q, r, factor)

    def _product(self, re: Array, im: Array, x: Array) -> Array:
        n = re.shape[-1]
        a, b = x[..., :n], x[..., n:]
        rank = self.factor * self.xp.sum(self.r * x, axis=-1, keepdims=True) * self.q
        return self.xp.concat([re * a - im * b, re * b + im * a], axis=-1) - rank

    def resolve(self, x: Array) -> Array:
        """M x for x (..., D, 2n)."""
        return self._product(self.re, self.im, x)

    def advance(self, x: Array) -> Array:
        """Ā x for x (..., D, 2n)."""
        return x + 2 * self._product(self.less_re, self.less_im, x)

    def changes(self, eye: Array, count: int) -> list[Array]:
        """The transposes of Ā - 1, Ā² - 1, Ā⁴ - 1, ... (D, 2n, 2n), for `moved`; eye (n, n)."""
        xp = self.xp
        re, im = eye * self.less_re[:, None, :], eye * self.less_im[:, None, :]
        diagonal = xp.concat([xp.concat([re, im], axis=2), xp.concat([-im, re], axis=2)], axis=1)
        found = [2 * (diagonal - (self.factor * self.r)[:, :, None] * self.q[:, None, :])]
        while len(found) < count:
            found.append(2 * found[-1] + xp.matmul(found[-1], found[-1]))
        return found


def moved(xp: Any, rows: Array, change: Array) -> Array:
    """rows (D, K, N) times 1 + change (D, N, N)."""
    return rows + xp.matmul(rows, change)


def extend(xp: Any, rows: Array, changes: Sequence[Array]) -> Array:
    """rows (D, K, N) -> (D, 2^len(changes) K, N): all so far follow themselves, moved by the next change."""
    for change in changes:
        rows = xp.concat([rows, moved(xp, rows, change)], axis=1)
    return rows
