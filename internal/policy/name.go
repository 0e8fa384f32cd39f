package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Name is the spelling under which lists compare a tool's name: trimmed, lower
// case, compatibility forms and look-alike letters written in ASCII, invisible
// characters and marks left out. plain says that the name was ASCII to begin
// with: one that was not is never allowed, since it could only be meant to look
// like another. Two tools with the same spelling are one tool to policy, so a
// catalog must refuse the second.
func Name(name string) (folded string, plain bool) {
	name = strings.TrimSpace(name)
	plain = true
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] >= utf8.RuneSelf-1 {
			plain = false
			break
		}
	}
	if plain {
		return strings.ToLower(name), true
	}
	var b strings.Builder
	for _, r := range norm.NFKD.String(name) {
		if unicode.Is(unicode.M, r) || unicode.Is(unicode.C, r) || unicode.IsSpace(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) {
			continue
		}
		if ascii, ok := lookAlikes[r]; ok {
			r = ascii
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String(), false
}

// lookAlikes are letters that a reader takes for an ASCII one and that no
// normal form changes.
var lookAlikes = map[rune]rune{}

func init() {
	for _, pair := range []struct{ from, to string }{
		// Cyrillic
		{"абвегһіїјклмнопрстухуԛѕԝьԁԍѵѡ", "abbegviijkлmhonpctyxyqswbdgvw"},
		{"АВЕЅІЈКМНОРСТУХԚԜЬҮҺ", "abesijkmhopctyxqwbyh"},
		// Greek
		{"αβγεηικνορτυχωϲϳ", "abyenikvoptuxwcj"},
		{"ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹ", "abezhikmnoptyxc"},
		// Armenian, Cherokee and Latin letters of other alphabets
		{"աոսօցհյքզԱՕՍՏ", "wnuoghjqqUOUS"},
		{"ᎠᎡᎢᎪᎫᎬᎳᎷᎻᏀᏃᏎᏏᏒᏔᏙᏚᏞᏟᏢ", "drtajewmhgzsbrtvslcp"},
		{"ɑɡıȷɩʟɴʀʏƅƒʋʍøðđħłŧƶɓɗɛɪᴀᴄᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢꜱ", "agijilnrybfvwoddhltzbdeiacejkmoptuvwzs"},
		// Signs
		{"‐‒–—―−⁃˗·‧∙⋅。։︓∶ꓽ٠۔‗⁄∕∗⁎٭", "--------......:::o._//***"},
	} {
		to := []rune(pair.to)
		for i, r := range []rune(pair.from) {
			lookAlikes[r] = to[i]
		}
	}
}
