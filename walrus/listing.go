package walrus

import (
	"context"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/s3response"
)

// Listings as S3 writes them: keys escaped where the client asks for it, since XML
// can't carry every character of a key, and what was asked repeated even if empty.

// escaper returns how a listing writes names: escaped, or as they are.
func escaper(ctx context.Context) (func(*string) *string, types.EncodingType) {
	request, ok := ctx.(*fasthttp.RequestCtx)
	if !ok || string(request.QueryArgs().Peek("encoding-type")) != "url" {
		return func(name *string) *string { return name }, ""
	}
	return func(name *string) *string {
		if name == nil {
			return nil
		}
		return aws.String(escape(*name))
	}, types.EncodingTypeUrl
}

// escape is S3's way: as in a query, but for the slash.
func escape(name string) string {
	return strings.ReplaceAll(url.QueryEscape(name), "%2F", "/")
}

func orEmpty(text *string) *string {
	if text == nil {
		return new(string)
	}
	return text
}

func escapePrefixes(list []types.CommonPrefix, esc func(*string) *string) {
	for i := range list {
		list[i].Prefix = esc(list[i].Prefix)
	}
}

// ListObjects lists a bucket the old way.
func (s *store) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	out, err := s.Posix.ListObjects(ctx, in)
	if err != nil {
		return out, s.known("ListObjects", err)
	}
	esc, encoding := escaper(ctx)
	out.EncodingType = encoding
	out.Prefix, out.Marker = esc(orEmpty(out.Prefix)), esc(orEmpty(out.Marker))
	out.NextMarker, out.Delimiter = esc(out.NextMarker), esc(out.Delimiter)
	escapePrefixes(out.CommonPrefixes, esc)
	for i := range out.Contents {
		out.Contents[i].Key = esc(out.Contents[i].Key)
	}
	return out, nil
}

// ListObjectsV2 lists a bucket.
func (s *store) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	out, err := s.Posix.ListObjectsV2(ctx, in)
	if err != nil {
		return out, s.known("ListObjectsV2", err)
	}
	esc, encoding := escaper(ctx)
	out.EncodingType = encoding
	out.Prefix, out.StartAfter, out.Delimiter = esc(orEmpty(out.Prefix)), esc(out.StartAfter), esc(out.Delimiter)
	escapePrefixes(out.CommonPrefixes, esc)
	for i := range out.Contents {
		out.Contents[i].Key = esc(out.Contents[i].Key)
	}
	return out, nil
}

// ListObjectVersions lists a bucket with all versions.
func (s *store) ListObjectVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (s3response.ListVersionsResult, error) {
	out, err := s.Posix.ListObjectVersions(ctx, in)
	if err != nil {
		return out, s.known("ListObjectVersions", err)
	}
	esc, encoding := escaper(ctx)
	out.EncodingType = encoding
	out.Prefix, out.KeyMarker = esc(orEmpty(out.Prefix)), esc(orEmpty(out.KeyMarker))
	out.NextKeyMarker, out.Delimiter = esc(out.NextKeyMarker), esc(out.Delimiter)
	escapePrefixes(out.CommonPrefixes, esc)
	for i := range out.Versions {
		out.Versions[i].Key = esc(out.Versions[i].Key)
	}
	for i := range out.DeleteMarkers {
		out.DeleteMarkers[i].Key = esc(out.DeleteMarkers[i].Key)
	}
	return out, nil
}
