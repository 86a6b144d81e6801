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
    15  tensors                     Stored tensors
    16  weights                     Weights
    17  download                    Download
    18  data/records                Records
    19  data/files                  Files
    20  data/formats                Formats
    21  data/template               Template
    22  data/tokenizer              Tokenizer
    23  data/examples               Examples
    24  data/truncation             Truncation
    25  data/weighing               Weighing
    26  data/forest                 Token forest
    27  data/batches                Batches
    28  data/bpe                    BPE
    29  data/almanac/tables         Tables
    30  data/almanac/wordings       Wordings
    31  data/almanac/chance         Chance
    32  data/almanac/arithmetic     Arithmetic
    33  data/almanac/tell_facts     Telling facts
    34  data/almanac/tell_numbers   Telling numbers
    35  data/almanac/tell_words     Telling words
    36  data/almanac/tell           Telling
    37  data/almanac/ask            Asking
    38  data/almanac/write          Writing
    39  data/marking                Marking
    40  data/page                   Page
    41  data/opening                Opening
    42  data/show                   Showing
    43  data/statistics             Statistics
    44  data/stats                  Stats
    45  inference/sampling          Sampling
    46  inference/cache             Key/value cache
    47  inference/generate          Generation
    48  inference/answer            Answering
    49  inference/carry_on          Carrying on
    50  inference/chat              Chat
    51  training/adamw              AdamW
    52  training/schedule           Schedule
    53  training/losses             Losses
    54  training/loop               Loop
    55  training/evaluation         Evaluation
    56  training/checkpoint         Checkpoint
    57  training/curve              Curve
    58  training/settings           Settings
    59  training/report             Report
    60  training/material           Material
    61  training/exam               Exam
    62  training/run_page           Page of a run
    63  training/finetune           Fine-tuning
    64  training/evaluate           Evaluate
    65  training/imbalance          Imbalance
    66  training/show_imbalance     Showing imbalance
    67  training/copying            Copying
    68  training/pretrain           Pretraining
    69  cli                         Command line
"""

__version__ = "0.1.0"
