"""Filter banks and PiggybackNetwork. Imports torch, numpy and safetensors only."""
