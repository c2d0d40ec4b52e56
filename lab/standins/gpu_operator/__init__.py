"""A stand-in of NVIDIA's GPU Operator and its operands, for nodes that describe their GPUs in a file.

It keeps the names, labels, resources and status values of the real ones, and speaks the real device plugin protocol
with the real kubelet. There is no GPU, no driver and no NVIDIA software in it.
"""
