" Highlighting for attnlang (.attn). The words are those of ../../vscode/syntaxes/attn.tmLanguage.json; a test compares them.
if exists('b:current_syntax')
  finish
endif

syntax match attnCall /\<\h\w*\ze(/

syntax keyword attnOperatorWord and or not mod
syntax keyword attnWord if else for in where by as of over per always never every from restart
syntax keyword attnConstant true false True False
syntax keyword attnTensor Q K V
syntax keyword attnSize B H HK NQ NK D DV
syntax keyword attnIndex b h q k scale

syntax match attnDeclaration /^\s*\zs\(pattern\|def\|branch\|select\|scan\|let\|tensor\|state\|blocks\|import\|grid\|assert\|require\)\>/ nextgroup=attnName skipwhite
syntax match attnSection /^\s*\zs\(mask\|sparsity\|score\|weight\|normalize\|reweight\|value\|output\|step\)\>\(\s*[=:,)]\)\@!/
syntax match attnName /\h\w*/ contained
syntax match attnType /:\s*\zs\(int\|float\|bool\)\>/
syntax match attnNumber /\<\d[0-9_]*\(\.\d[0-9_]*\)\=\([eE][+-]\=\d\+\)\=\>/
syntax match attnOperator /\*\*\|\/\/\|[<>=!]=\|[-+*\/@<>=|]/
syntax region attnText start=/"/ skip=/\\./ end=/"/ oneline
syntax region attnText start=/"""/ skip=/\\./ end=/"""/
syntax match attnComment /#.*$/ contains=@Spell

highlight default link attnDeclaration Structure
highlight default link attnSection Statement
highlight default link attnWord Keyword
highlight default link attnOperatorWord Operator
highlight default link attnName Function
highlight default link attnCall Function
highlight default link attnType Type
highlight default link attnConstant Boolean
highlight default link attnNumber Number
highlight default link attnTensor Identifier
highlight default link attnSize Constant
highlight default link attnIndex Identifier
highlight default link attnOperator Operator
highlight default link attnText String
highlight default link attnComment Comment

let b:current_syntax = 'attn'
