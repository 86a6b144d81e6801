"""minigpt2: GPT-2 and its instruction tuning, every gradient derived and written by hand.

Symbols, the same in every chapter
    N  rows (tokens) in a batch        C  features of a row (n_embd)
    H  attention heads (n_head)        D  features of a head, D = C / H
    F  hidden features, F = 4 C        V  entries of the vocabulary
    T  positions, the longest sequence L  blocks (n_layer)
    M  supervised triples of a batch   P  parameters
    B  rows of one block or chunk      K  output features, or keys of one block

    dx, and dL/dx in the code's words, stand for ∂ℒ/∂x, where ℒ is the loss, the one
    number that training lowers.

Chapters, in reading order; a chapter uses only those above it
     1  backend                     Backend
     2  ops/linear                  Linear map
     3  ops/embedding               Embedding
     4  ops/layer_norm              Layer normalisation
     5  ops/gelu                    GELU
     6  ops/softmax                 Softmax
     7  ops/dropout                 Dropout
     8  ops/attention               Attention over the token forest
     9  ops/cross_entropy           Cross-entropy with the projection inside
    10  errors                      Errors
    11  shipped                     Shipped files
    12  device/source               Source
    13  device/table                Table of kernels
    14  device/compile              Compile
    15  device/findings             Findings
    16  device/emulator             Emulator
    17  device/stand_in             Stand-in
    18  device/launch               Launch
    19  device/fused                Fused ops
    20  device/devices              Devices
    21  model/config                Configuration
    22  model/parameters            Parameters
    23  model/block                 Block
    24  model/gpt2                  GPT-2
    25  memory                      Memory
    26  tensors                     Stored tensors
    27  weights                     Weights
    28  download                    Download
    29  data/records                Records
    30  data/files                  Files
    31  data/formats                Formats
    32  data/template               Template
    33  data/tokenizer              Tokenizer
    34  data/examples               Examples
    35  data/truncation             Truncation
    36  data/weighing               Weighing
    37  data/forest                 Token forest
    38  data/batches                Batches
    39  data/bpe                    BPE
    40  data/almanac/tables         Tables
    41  data/almanac/wordings       Wordings
    42  data/almanac/chance         Chance
    43  data/almanac/arithmetic     Arithmetic
    44  data/almanac/tell_facts     Telling facts
    45  data/almanac/tell_numbers   Telling numbers
    46  data/almanac/tell_words     Telling words
    47  data/almanac/tell           Telling
    48  data/almanac/ask            Asking
    49  data/almanac/write          Writing
    50  data/marking                Marking
    51  data/page                   Page
    52  data/opening                Opening
    53  data/show                   Showing
    54  data/statistics             Statistics
    55  data/stats                  Stats
    56  inference/sampling          Sampling
    57  inference/cache             Key/value cache
    58  inference/generate          Generation
    59  inference/answer            Answering
    60  inference/carry_on          Carrying on
    61  inference/chat              Chat
    62  training/adamw              AdamW
    63  training/precision          Precision
    64  training/schedule           Schedule
    65  training/forecast           Forecast
    66  training/rehearsal          Rehearsal
    67  training/losses             Losses
    68  training/loop               Loop
    69  training/evaluation         Evaluation
    70  training/checkpoint         Checkpoint
    71  training/curve              Curve
    72  training/settings           Settings
    73  training/events             Events
    74  training/report             Report
    75  training/material           Material
    76  training/workload           Workload
    77  training/plan               Plan
    78  training/exam               Exam
    79  training/run_page           Page of a run
    80  training/finetune           Fine-tuning
    81  training/evaluate           Evaluate
    82  training/imbalance          Imbalance
    83  training/show_imbalance     Showing imbalance
    84  training/copying            Copying
    85  training/pretrain           Pretraining
    86  cli                         Command line
"""

import os

# OpenBLAS looks at this once, when NumPy loads it.  Its threads wait so many clock cycles for the
# next product before they sleep, as a power of two: 0.1 ms here, and not the usual 20 ms, in which
# they would keep cores from the threads that do the work between two products.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")

__version__ = "0.1.0"
