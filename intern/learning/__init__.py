"""The learning half: examples to dataset, dataset to adapter, adapter to verdict, verdict to deployment."""
