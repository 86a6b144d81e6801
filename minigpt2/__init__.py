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
    17  data/records                Records
    18  data/template               Template
    19  data/tokenizer              Tokenizer
    20  data/forest                 Token forest
    21  data/batches                Batches
    22  data/bpe                    BPE
    23  data/almanac/tables         Tables
    24  data/almanac/wordings       Wordings
    25  data/almanac/chance         Chance
    26  data/almanac/arithmetic     Arithmetic
    27  data/almanac/tell_facts     Telling facts
    28  data/almanac/tell_numbers   Telling numbers
    29  data/almanac/tell_words     Telling words
    30  data/almanac/tell           Telling
    31  data/almanac/ask            Asking
    32  data/almanac/write          Writing
    33  inference/sampling          Sampling
    34  inference/cache             Key/value cache
    35  inference/generate          Generation
    36  inference/answer            Answering
    37  training/adamw              AdamW
    38  training/schedule           Schedule
    39  training/loop               Loop
    40  training/evaluation         Evaluation
    41  training/checkpoint         Checkpoint
    42  training/curve              Curve
    43  training/settings           Settings
    44  training/report             Report
    45  training/material           Material
    46  training/exam               Exam
    47  training/finetune           Fine-tuning
    48  training/copying            Copying
    49  training/pretrain           Pretraining
    50  cli                         Command line
"""

__version__ = "0.1.0"
