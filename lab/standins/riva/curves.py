"""Service times measured on real GPUs (docs/real-gpu.md): batch size and milliseconds of one execution.

Each is the median of what a server waits for: the copy of the audio to the GPU, features, network, labels back. The
network is ``gpu_worker.py``'s, with random weights, bfloat16, a window of 4 s, one CUDA graph for each batch size.
"""

CURVES: dict[str, tuple[tuple[int, float], ...]] = {
    "h100-1.1b": (
        *((1, 6.27), (2, 6.69), (3, 6.95), (4, 7.27), (6, 7.83), (8, 8.44), (12, 9.59), (16, 11.01), (20, 12.64)),
        *((24, 13.76), (28, 15.32), (32, 18.64), (40, 19.58), (48, 23.15), (56, 25.99), (64, 30.76)),
    ),
    "h100-0.6b": (
        *((1, 3.70), (2, 3.97), (3, 4.11), (4, 4.28), (6, 4.70), (8, 5.04), (12, 5.79), (16, 6.63), (20, 7.53)),
        *((24, 8.22), (28, 9.23), (32, 11.30), (40, 12.16), (48, 14.12), (56, 16.09), (64, 18.71)),
    ),
}
