"""The book as pages: what the docstrings derive, typeset, next to the code that computes it.

    python -m book [FOLDER]     the pages, into build/book unless a folder is named

The sources are the documents: Sphinx reads each module and each kernel as it is (conf.py), and
nothing is written twice.

    parse       what a source defines and cites: contents, docstrings, equations
    lines       what each line of a docstring is
    blocks      a docstring as headings, paragraphs, equations, examples and tables
    formulas    an equation of plain text as MathML
    symbols     which words of a sentence are mathematics
    links       where an equation, a chapter, a module or a kernel stands, and who uses an equation
    listing     source code in colour, each line with a number, each equation it cites with a link
    nodes       the elements of a page that Sphinx lacks, and their HTML
    elements    blocks and sentences as elements of a page
    pages       one page a module, one a kernel
    front       the first page, with the symbols and the contents
    conf        the settings of Sphinx
"""
