"""The pipeline of DVC 2 and 3: interpolation, foreach, every way to say where an output is kept.

Callers: the histories of 2.58 and 3. Pure.
"""

from __future__ import annotations

from typing import Final

PARAMS: Final = """\
lr: 1
flag: true
paths:
  base: made
  parts: [first, second]
settings:
  small: {size: 1}
  big: {size: 1000}
"""

EXTRA_VARS: Final = "extra:\n  name: from-vars\n"

PIPELINE: Final = """\
vars:
- inline: top
- extra.yaml:extra
stages:
  prepare:
    cmd: mkdir -p ${paths.base}/${paths.parts[0]} kept
      && cp data/crlf.txt params.yaml ${paths.base}/${paths.parts[0]}/
      && cp data/tool.sh ${paths.base}/ && echo kept >kept/k && echo plain >plain.txt
      && grep lr params.yaml >metrics.json && echo '{"a":1}' >summary.json
      && printf 'x,y\\n1,2\\n' | tee plot.csv >curve.csv
    deps:
    - data
    params:
    - lr
    outs:
    - ${paths.base}:
        desc: interpolated
        meta: {any: [thing]}
    - kept:
        persist: true
    - plain.txt:
        cache: false
    metrics:
    - metrics.json
    - summary.json:
        cache: false
    plots:
    - curve.csv:
        x: x
        y: y
    - plot.csv:
        cache: false
  named:
    vars:
    - own: stage-var
    cmd: mkdir -p names && echo 1 >names/${inline} && echo 2 >names/${extra.name} && echo 3 >names/${own}
      && echo 4 >names/${flag} && echo 5 >'names/\\${escaped}'
    outs:
    - names/${inline}
    - names/${extra.name}
    - names/${own}
    - names/${flag}
    - names/\\${escaped}
  deep:
    wdir: work/${paths.parts[1]}
    cmd: mkdir -p ../up/made && cp seed.txt ../up/made/
    deps:
    - seed.txt
    outs:
    - ../up/made
    frozen: true
  elsewhere:
    cmd: echo private >private.txt && echo other >other.txt
    outs:
    - private.txt:
        push: false
    - other.txt:
        remote: second
  scalars:
    foreach: [red, 'dark blue', 7, true]
    do:
      cmd: mkdir -p colours && echo ${item} >'colours/${item}.txt'
      outs:
      - colours/${item}.txt
  sizes:
    foreach: ${settings}
    do:
      cmd: mkdir -p sizes && echo ${key} ${item.size} >sizes/${key}
      outs:
      - sizes/${key}
  maps:
    foreach:
    - {in: one, out: eins}
    - {in: two, out: zwei}
    do:
      wdir: maps
      cmd: echo ${item.in} >${item.out}
      outs:
      - ${item.out}
  train:
    cmd: mkdir -p weights && cp params.yaml weights/w && cp lists/a.txt weights/
      && grep lr params.yaml >score.json
    deps:
    - lists
    params:
    - lr
    outs:
    - weights
    metrics:
    - score.json:
        cache: false
"""

MATRIX: Final = """\
  grid:
    matrix:
      colour: [red, blue]
      size: [1, 2.5]
      model:
      - {name: tree, deep: true}
      - {name: line, deep: false}
    cmd: mkdir -p grid && echo ${item.colour} ${item.size} ${item.model.name} >grid/${key}
    outs:
    - grid/${key}
"""

PLAIN_PIPELINE: Final = """\
stages:
  copy:
    cmd: cp photos/one.txt four.txt
    deps:
    - photos
    outs:
    - four.txt
"""

TOP_LEVEL: Final = """\
metrics:
- summary.json
plots:
- curve.csv:
    x: x
    y: y
artifacts:
  weights:
    path: weights
    type: model
"""
