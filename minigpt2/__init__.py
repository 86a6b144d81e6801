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
    11  model/config                Configuration
    12  model/parameters            Parameters
    13  model/block                 Block
    14  model/gpt2                  GPT-2
    15  memory                      Memory
    16  tensors                     Stored tensors
    17  weights                     Weights
    18  download                    Download
    19  data/records                Records
    20  data/files                  Files
    21  data/formats                Formats
    22  data/template               Template
    23  data/tokenizer              Tokenizer
    24  data/examples               Examples
    25  data/truncation             Truncation
    26  data/weighing               Weighing
    27  data/forest                 Token forest
    28  data/batches                Batches
    29  data/bpe                    BPE
    30  data/almanac/tables         Tables
    31  data/almanac/wordings       Wordings
    32  data/almanac/chance         Chance
    33  data/almanac/arithmetic     Arithmetic
    34  data/almanac/tell_facts     Telling facts
    35  data/almanac/tell_numbers   Telling numbers
    36  data/almanac/tell_words     Telling words
    37  data/almanac/tell           Telling
    38  data/almanac/ask            Asking
    39  data/almanac/write          Writing
    40  data/marking                Marking
    41  data/page                   Page
    42  data/opening                Opening
    43  data/show                   Showing
    44  data/statistics             Statistics
    45  data/stats                  Stats
    46  inference/sampling          Sampling
    47  inference/cache             Key/value cache
    48  inference/generate          Generation
    49  inference/answer            Answering
    50  inference/carry_on          Carrying on
    51  inference/chat              Chat
    52  training/adamw              AdamW
    53  training/schedule           Schedule
    54  training/forecast           Forecast
    55  training/rehearsal          Rehearsal
    56  training/losses             Losses
    57  training/loop               Loop
    58  training/evaluation         Evaluation
    59  training/checkpoint         Checkpoint
    60  training/curve              Curve
    61  training/settings           Settings
    62  training/events             Events
    63  training/report             Report
    64  training/material           Material
    65  training/workload           Workload
    66  training/plan               Plan
    67  training/exam               Exam
    68  training/run_page           Page of a run
    69  training/finetune           Fine-tuning
    70  training/evaluate           Evaluate
    71  training/imbalance          Imbalance
    72  training/show_imbalance     Showing imbalance
    73  training/copying            Copying
    74  training/pretrain           Pretraining
    75  cli                         Command line
"""

__version__ = "0.1.0"
