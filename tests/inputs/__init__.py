"""Inputs that are malformed, odd, or both, for every command, run as a user runs them.

A row is a command line with the files that it reads, and what must come of it: a refusal in one
line, or the right result.  The rows are in one file for each kind of input:

    data        what stands in a data file           formats     the fields of its entries
    settings    settings files                       templates   templates
    configs     config.json                          weights     safetensors and their index
    vocabularies  vocab.json and merges.txt          values      values on the command line
    names       names of files                       streams     standard input and output
    sizes       what is huge, endless or a device    outputs     what a command writes
    adapters    folders of adapters, and their model
    legal       odd requests that are none the less right

`make check-inputs` runs all of them; `make test` runs a few (test_inputs.py).
"""
