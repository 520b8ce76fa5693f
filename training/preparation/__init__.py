"""Raw videos -> a manifest, WebDataset shards and a contact sheet; the program is `training/prepare.py`.

Stages are functions of one row, whose results are kept in a store by (row, stage, key):

    sources     files of the input folders
    shots       cuts a source into clips                 quality   measures a clip, rejects it with a reason
    trim        writes a clip: 4n + 1 frames, a bucket   motion    measures its optical flow
    captions    server, text file, or a template         annotate  controls, masks, key points
    references  subjects cut out on white                tasks     rows of the manifest, or why there is none

A key has the stage's version and settings and the keys of the stages before it. A killed run continues with
the rows that lack a result; a stage that changed runs again with all that depends on it.
"""
