" Editing .attn files: four spaces, comments with #, and :make that runs the checker.
if exists('b:did_ftplugin')
  finish
endif
let b:did_ftplugin = 1
setlocal expandtab shiftwidth=4 softtabstop=4 commentstring=#\ %s comments=:#
setlocal makeprg=attnlang\ check\ %:S errorformat=%f:%l:%c:\ %m
let b:undo_ftplugin = 'setlocal expandtab< shiftwidth< softtabstop< commentstring< comments< makeprg< errorformat<'
