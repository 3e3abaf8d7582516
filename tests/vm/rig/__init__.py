"""A cluster of virtual machines: real kernels, a real SCSI target, cables, power switches."""
