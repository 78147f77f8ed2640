package upload

import (
	"mime"
	"strings"
)

const octetStream = "application/octet-stream"

// maxType bounds a media type in bytes. chosen: RFC 6838 §4.2 allows 127 for each of type and subtype, and real ones have a third of that.
const maxType = 255

// mediaType parses a media type and writes it again, so that nothing but a media type can get into a header; empty when it is none.
func mediaType(s string) string {
	if len(s) > maxType {
		return ""
	}
	t, params, err := mime.ParseMediaType(s)
	if err != nil || strings.Count(t, "/") != 1 {
		return ""
	}
	t = mime.FormatMediaType(t, params)
	// A tab may stand in a quoted string (RFC 9110 §5.6.4) and in nothing that is a media type.
	if len(t) > maxType || strings.ContainsRune(t, '\t') {
		return ""
	}
	return t
}

// inline are the types that a browser may show: images, sounds and films that carry no script. Everything else is for saving.
var inline = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/avif": true, "image/bmp": true, "image/heic": true, "image/jxl": true,
	"audio/mpeg": true, "audio/ogg": true, "audio/opus": true, "audio/mp4": true, "audio/aac": true, "audio/x-m4a": true, "audio/webm": true, "audio/wav": true, "audio/x-wav": true,
	"audio/flac": true, "audio/amr": true, "audio/3gpp": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true, "video/3gpp": true, "video/x-matroska": true,
}

// served is how a file of a type is given to browsers: the Content-Type, and whether it is for saving. What could be active is never called
// by its name.
func served(typ string) (contentType string, attachment bool) {
	t, _, err := mime.ParseMediaType(typ)
	if err != nil {
		return octetStream, true
	}
	main, sub, _ := strings.Cut(t, "/")
	switch {
	case inline[t]:
		return typ, false
	case main == "multipart" || main == "message" || strings.Contains(sub, "xml") || strings.Contains(sub, "html") || strings.Contains(sub, "script") ||
		strings.Contains(sub, "svg") || strings.Contains(sub, "flash") || strings.Contains(sub, "css") || strings.Contains(sub, "wasm") || strings.Contains(sub, "xsl"):
		return octetStream, true
	}
	return typ, true
}
