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
    15  weights                     Weights
    16  data/records                Records
    17  data/template               Template
    18  data/tokenizer              Tokenizer
    19  data/forest                 Token forest
    20  data/batches                Batches
    21  data/bpe                    BPE
    22  data/almanac/tables         Tables
    23  data/almanac/wordings       Wordings
    24  data/almanac/chance         Chance
    25  data/almanac/arithmetic     Arithmetic
    26  data/almanac/tell_facts     Telling facts
    27  data/almanac/tell_numbers   Telling numbers
    28  data/almanac/tell_words     Telling words
    29  data/almanac/tell           Telling
    30  data/almanac/ask            Asking
    31  data/almanac/write          Writing
    32  inference/sampling          Sampling
    33  inference/cache             Key/value cache
    34  inference/generate          Generation
    35  inference/answer            Answering
    36  training/adamw              AdamW
    37  training/schedule           Schedule
    38  training/loop               Loop
    39  training/evaluation         Evaluation
    40  training/checkpoint         Checkpoint
    41  training/curve              Curve
    42  training/settings           Settings
    43  training/report             Report
    44  training/material           Material
    45  training/exam               Exam
    46  training/finetune           Fine-tuning
    47  training/copying            Copying
    48  training/pretrain           Pretraining
    49  cli                         Command line
"""

__version__ = "0.1.0"
