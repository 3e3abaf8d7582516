"""A cluster of virtual machines with real kernels, a real SCSI target, cables and power switches."""
