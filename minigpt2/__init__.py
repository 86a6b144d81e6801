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
    19  data/template               Template
    20  data/tokenizer              Tokenizer
    21  data/forest                 Token forest
    22  data/batches                Batches
    23  data/bpe                    BPE
    24  data/almanac/tables         Tables
    25  data/almanac/wordings       Wordings
    26  data/almanac/chance         Chance
    27  data/almanac/arithmetic     Arithmetic
    28  data/almanac/tell_facts     Telling facts
    29  data/almanac/tell_numbers   Telling numbers
    30  data/almanac/tell_words     Telling words
    31  data/almanac/tell           Telling
    32  data/almanac/ask            Asking
    33  data/almanac/write          Writing
    34  inference/sampling          Sampling
    35  inference/cache             Key/value cache
    36  inference/generate          Generation
    37  inference/answer            Answering
    38  inference/carry_on          Carrying on
    39  inference/chat              Chat
    40  training/adamw              AdamW
    41  training/schedule           Schedule
    42  training/loop               Loop
    43  training/evaluation         Evaluation
    44  training/checkpoint         Checkpoint
    45  training/curve              Curve
    46  training/settings           Settings
    47  training/report             Report
    48  training/material           Material
    49  training/exam               Exam
    50  training/finetune           Fine-tuning
    51  training/copying            Copying
    52  training/pretrain           Pretraining
    53  cli                         Command line
"""

__version__ = "0.1.0"
